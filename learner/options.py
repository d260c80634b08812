"""Settings of the policy's training, and what they mean to DeepSpeed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from common.errors import ConfigError
from common.settings import Sections
from learner.loss import Correction, Normalization


@dataclass(frozen=True)
class PolicyOptions:
    """How the policy is trained. Example: `PolicyOptions(lr=1e-6, mini_steps=4)`, the paper's."""

    lr: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Decoupled, on every parameter."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly to `lr`, where it stays."""
    max_grad_norm: float = 1.0
    zero_stage: Literal[0, 1, 2, 3] = 1
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights; bfloat16 keeps float32 master weights and accumulates gradients in float32."""
    optimizer: Literal["adamw"] = "adamw"
    micro_batch_tokens: int = 8192
    """Padded tokens of one forward and backward pass."""
    clip_low: float = 0.2
    clip_high: float = 0.28
    correction: Correction = "tis"
    tis_cap: float = 2.0
    mini_steps: int = 1
    """Optimizer steps per batch; the sequences are cut into so many runs, in their order."""
    normalization: Normalization = "token_mean"
    seed: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ConfigError(
                "dtype = bfloat16 with zero_stage = 0: DeepSpeed silently takes another optimizer there; "
                "use zero_stage = 1"
            )
        if self.optimizer != "adamw":
            raise ConfigError(f"optimizer = {self.optimizer!r} is unknown; use adamw")


def policy_options(settings: Sections) -> PolicyOptions:
    """The policy's part of the [learner] section."""
    given = settings.learner.model_dump()
    names = {field.name for field in fields(PolicyOptions)}
    shared = {name: value for name, value in given.items() if name in names}
    return PolicyOptions(**shared, betas=(given["beta1"], given["beta2"]), seed=settings.run.seed)


def deepspeed_config(options: PolicyOptions, ranks: int) -> dict[str, Any]:
    """What `deepspeed.initialize` gets for `options` on `ranks` ranks; the optimizer is passed beside it."""
    config: dict[str, Any] = {
        # The engine divides losses by its accumulation steps; ours are means of the batch already.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": options.max_grad_norm if options.zero_stage else 0.0,
        "zero_optimization": {"stage": options.zero_stage},
    }
    if ranks == 1:
        # Nothing to communicate: gradients need not be copied into and out of buckets, which for 135 M
        # parameters takes 0.4 s of CPU a step. A parameter beyond the bucket size is used where it lies.
        config["zero_optimization"] |= {"reduce_bucket_size": 1, "contiguous_gradients": False}
    if options.dtype == "bfloat16":
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
