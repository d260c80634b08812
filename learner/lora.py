"""Low-rank adapters through peft (LoRA, arXiv:2106.09685): few weights are trained, all are published.

Everybody else sees a model without adapters: they are added into the weights on their way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import ConfigError
from common.extras import needs

Gathered = Callable[[Sequence[nn.Parameter]], AbstractContextManager[Any]]
"""Makes parameters whole for as long as it is entered (ZeRO-3 keeps a part on each rank)."""

_NAME = "default"


def add_adapters(model: nn.Module, rank: int, alpha: float, targets: Sequence[str]) -> None:
    """Freezes `model` and gives it adapters in place: W + alpha / rank * B A, with B = 0 at first (Eq. 3).

    `targets` are names of linear layers such as "q_proj"; none means all but the output layer. Raises ConfigError.
    """
    needs(f"learner.lora_rank = {rank}", "peft", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    chosen = list(targets) or "all-linear"
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen, task_type="CAUSAL_LM")
    try:
        inject_adapter_in_model(config, model, _NAME)
    except ValueError as error:
        raise ConfigError(f"learner.lora_targets = {list(targets)}: {error}") from error


def without_adapters(model: nn.Module) -> AbstractContextManager[None]:
    """For as long as it is entered `model` computes what it did before it had adapters. No gradient may begin in it."""
    from peft.helpers import rescale_adapter_scale

    without: AbstractContextManager[None] = rescale_adapter_scale(model, 0.0)
    return without


def merged_weights(model: nn.Module, gathered: Gathered) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the model without adapters, by its name there: those with an adapter have it added."""
    from peft.tuners.lora import LoraLayer

    adapted: dict[str, Any] = {
        f"{name}.base_layer.weight": layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            continue
        own = name.replace(".base_layer.", ".")
        layer = adapted.get(name)
        if layer is None:
            with gathered([parameter]):
                yield own, parameter.detach()
            continue
        with gathered([parameter, layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight]), torch.no_grad():
            # Added in float32: in bfloat16 a small change of a large weight would be rounded away twice.
            yield own, (parameter.float() + layer.get_delta_weight(_NAME).float()).to(parameter.dtype)


def frozen_weights(model: nn.Module, gathered: Gathered) -> Iterator[tuple[str, Tensor]]:
    """Every weight that is not trained, by its name in the model without adapters."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            with gathered([parameter]):
                yield name.replace(".base_layer.", "."), parameter.detach()


def adapter_weights(model: nn.Module, gathered: Gathered) -> Iterator[tuple[str, Tensor]]:
    """The adapters alone, by the names that peft loads."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with gathered([parameter]):
                yield "base_model.model." + name.replace(f".{_NAME}.", "."), parameter.detach()


def write_adapter(folder: Path, model: Any, weights: dict[str, Tensor], base: Path) -> None:
    """`weights` of `adapter_weights` as a folder that `peft.PeftModel.from_pretrained` loads onto `base`."""
    from safetensors.torch import save_file

    config = model.peft_config[_NAME]
    config.base_model_name_or_path = str(base)
    config.inference_mode = True
    config.save_pretrained(folder)
    save_file(weights, folder / "adapter_model.safetensors")
