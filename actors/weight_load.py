"""New weights for a running vLLM engine: the check before, and the part that runs inside every vLLM worker.

`check_tensors` reads only safetensors headers, so a wrong publication is refused while the old policy is still intact.
`PolicyLoader` is mixed into vLLM's worker class (`worker_extension_cls`); it is the only code here that meets vLLM.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

_SHOWN = 4  # names listed in an error; a wrong architecture differs in hundreds


def weight_files(path: Path) -> list[Path]:
    """Safetensors files of a folder in name order, or the one file given; empty when there are none."""
    return [path] if path.is_file() else sorted(path.glob("*.safetensors"))


def tensor_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """Shapes by tensor name, from the headers alone.

    Raises WeightsError for a file that is missing, torn (size against header) or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - the handle is no mapping
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"{file} is not a complete safetensors file ({error}); publish this version again"
            ) from error
    return shapes


def check_tensors(found: Shapes, expected: Shapes, *, tied: bool, source: str) -> None:
    """Refuse weights whose names or shapes are not those of the loaded model.

    vLLM itself only logs a missing tensor and keeps the old values, a mixture of two policies.
    `tied`: the output head is the embedding, so `lm_head.weight` may be written or left out.
    Raises WeightsError with the differing names and shapes.
    """
    optional = {"lm_head.weight"} if tied else set()
    missing = sorted(expected.keys() - found.keys() - optional)
    extra = sorted(found.keys() - expected.keys() - optional)
    shaped = [
        f"{name} {list(found[name])} instead of {list(expected[name])}"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    faults = [
        f"{len(names)} {kind}: {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
        for kind, names in (("missing", missing), ("unknown", extra), ("of another shape", shaped))
        if names
    ]
    if faults:
        raise WeightsError(
            f"{source} does not hold this model's {len(expected)} tensors ({'; '.join(faults)}); "
            "start the actor from the model that the learner trains, or export with Hugging Face parameter names"
        )


class PolicyLoader:
    """Worker extension: `collective_rpc("load_policy", args=(files,))` reaches it in every tensor-parallel rank."""

    model_runner: Any  # vLLM's worker provides both
    vllm_config: Any

    def load_policy(self, files: list[str], adapters: str | None = None, scale: float = 0.0) -> None:
        """Replace all weights in place from safetensors files with Hugging Face names, any float dtype; with a file of
        `adapters` each weight that has a pair of them gets scale * B A added.

        Layer by layer, because a plain `load_weights` meets weights that are already in kernel layout (prepacked
        on a CPU) and fails; in place, because CUDA graphs hold the addresses. Running requests must be paused.
        """
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

        # At every update it warns of modules without a tensor of their own (rotary tables, a tied head) as
        # "Failed to load weights"; what is really missing, check_tensors has refused.
        logging.getLogger("vllm.model_executor.model_loader.reload.layerwise").setLevel(logging.ERROR)
        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config):
            initialize_layerwise_reload(model)
            model.load_weights(_adapted(_tensors(files), adapters, scale) if adapters else _tensors(files))
            finalize_layerwise_reload(model, self.model_runner.model_config)
            _repack_kept_weights(model)


def _tensors(files: Sequence[str]) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - the handle is no mapping
                yield name, tensors.get_tensor(name)


def _adapted(weights: Iterator[tuple[str, Any]], adapters: str, scale: float) -> Iterator[tuple[str, Any]]:
    """As the learner adds them up (`learner.lora.merged_weights`): in float32, rounded once."""
    pairs = dict(_tensors([adapters]))
    for name, weight in weights:
        first, second = (pairs.get(adapter) for adapter in adapter_names(name))
        if first is None or second is None:
            yield name, weight
        else:
            yield name, (weight.float() + (second.float() @ first.float()) * scale).to(weight.dtype)


def adapter_names(weight: str) -> tuple[str, str]:
    """What peft calls A [rank, in] and B [out, rank] of a weight [out, in]."""
    layer = "base_model.model." + weight.removesuffix(".weight")
    return f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"


def check_adapters(found: Shapes, weights: Shapes, source: str) -> None:
    """Refuse adapters that are not pairs of this model's weights. Raises WeightsError with the first that are none."""
    left = dict(found)
    for name, shape in weights.items():
        first, second = (left.pop(adapter, None) for adapter in adapter_names(name))
        if first is None and second is None:
            continue
        fits = first and second and (second[0], first[1]) == shape and first[0] == second[1]
        if not fits:
            raise WeightsError(f"{source}: adapters {first} and {second} do not fit {name} {list(shape)}")
    if left:
        raise WeightsError(
            f"{source} holds {len(left)} tensors that are adapters of nothing here: "
            f"{', '.join(sorted(left)[:_SHOWN])}; "
            "start the actor from the model that the learner trains"
        )


def _repack_kept_weights(model: Any) -> None:
    """Rebuild the CPU kernels' packed copies from the weights that stay beside them.

    A tied output head has no tensor of its own to load, so the reload skips it: its weight is the embedding's storage
    and new, but it goes on multiplying with its packed copy of the old one. Log-probabilities are then off by 1 to 4.
    Layers that gave their weight up to the packed copy (now empty) were packed from the new values already.
    """
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if hasattr(module, "cpu_linear") and weight is not None and weight.numel() > 0:
            module.quant_method.process_weights_after_loading(module)
