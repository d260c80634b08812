"""Settings of the policy's training, and what they mean to DeepSpeed."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from common.errors import ConfigError
from common.settings import Sections
from learner.loss import Normalization
from learner.loss_inputs import LossOptions
from learner.schedule import Shape


@dataclass(frozen=True)
class PolicyOptions:
    """How the policy is trained. Example: `PolicyOptions(lr=1e-6, mini_steps=4)`, the paper's."""

    lr: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    """Decoupled, on matrices."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly to `lr`."""
    lr_schedule: Shape = "constant"
    final_lr_fraction: float = 0.0
    """What of `lr` is left after `total_steps`, unless it is constant."""
    total_steps: int = 0
    """Optimizer steps of the whole run."""
    max_grad_norm: float = 1.0
    zero_stage: Literal[0, 1, 2, 3] = 1
    offload: Literal["none", "optimizer", "parameters"] = "none"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights; bfloat16 keeps float32 master weights and accumulates gradients in float32."""
    micro_batch_tokens: int = 8192
    """Tokens of one forward and backward pass, padding included."""
    packing: Literal["auto", "off"] = "auto"
    loss: LossOptions = field(default_factory=LossOptions)
    mini_steps: int = 1
    """Optimizer steps per batch; the sequences are cut into so many runs, in their order."""
    normalization: Normalization = "token_mean"
    max_tokens: int = 512
    """That a completion may have; `fixed_length` divides by it."""
    lora_rank: int = 0
    """0 trains all weights."""
    lora_alpha: float = 32.0
    lora_targets: tuple[str, ...] = ()
    seed: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ConfigError(
                "dtype = bfloat16 with zero_stage = 0: DeepSpeed silently takes another optimizer there; "
                "use zero_stage = 1"
            )


def policy_options(settings: Sections) -> PolicyOptions:
    """The policy's part of the [learner] section."""
    given = settings.learner.model_dump()
    (clip_low, clip_high), (mask_low, mask_high) = settings.learner.clip_range, settings.learner.mask_band
    given |= {"clip_low": clip_low, "clip_high": clip_high, "mask_low": mask_low, "mask_high": mask_high}
    return PolicyOptions(
        **_shared(given, PolicyOptions),
        betas=(given["beta1"], given["beta2"]),
        total_steps=settings.run.steps * settings.learner.mini_steps,
        seed=settings.run.seed,
        max_tokens=settings.sampling.max_tokens,
        loss=LossOptions(**_shared(given, LossOptions)),
    )


def _shared(given: dict[str, Any], options: type[PolicyOptions] | type[LossOptions]) -> dict[str, Any]:
    names = {field.name for field in fields(options)}
    return {name: value for name, value in given.items() if name in names}


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
    if options.offload != "none":
        # DeepSpeed's own CPU Adam would be compiled first, for a minute and a half; torch's fused one is as good.
        config["zero_force_ds_cpu_optimizer"] = False
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if options.offload == "parameters":
        config["zero_optimization"]["offload_param"] = {"device": "cpu"}
    if options.dtype == "bfloat16":
        config["bf16"] = {"enabled": True, "check_grad_overflow": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
