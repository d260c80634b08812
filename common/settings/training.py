"""What is trained, and how that is measured: [learner], [eval], [sft], [rm]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.settings.section import Dtype, Fraction, Positive, Section


class LearnerSettings(Section):
    """The DeepSpeed learner."""

    groups_per_step: Positive = 32
    """Scored groups per batch; one batch, one new policy version."""
    max_staleness: Annotated[int, Field(ge=0)] = 1
    """Steps between the oldest token of a group and the step that trains on it."""
    advantage: Literal["centered", "normalized_then_weighted", "normalized", "corpo", "gdpo", "dara", "papo"] = (
        "centered"
    )
    """`normalized` divides by the standard deviation of the weighted rewards, which cancels the weight. `corpo`
    takes at least a right completion's least reward as the baseline: no wrong one is encouraged. `gdpo`, `dara` and
    `papo` normalize the verdict and the reward model's score apart, so bands and weight have no effect."""
    verifier_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Of the verdict's advantage in the sum of `gdpo` and `dara`."""
    rm_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Of the reward model's advantage in the same sum."""
    density_cap: Annotated[float, Field(ge=1.0)] = 3.0
    """`dara` raises the reward that tells apart in fewer groups, at most so many times: 3 where it does in a ninth."""
    process_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Lambda of `papo`: of the reward model's score among the right completions."""
    min_rm_auroc: Fraction = 0.0
    """While the reward model's AUROC in mixed groups, a running mean, is below this, groups that are all wrong or all
    right get no advantage. 0 is off, the paper's method; 0.5 is chance. Nothing known yet counts as enough."""
    lr: Annotated[float, Field(gt=0.0)] = 5e-5
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    mini_steps: Positive = 1
    """Optimizer steps per batch, the proximal policy fixed (the paper: 4)."""
    clip_low: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    clip_high: Annotated[float, Field(gt=0.0)] = 0.28
    correction: Literal["tis", "none"] = "tis"
    """Truncated importance sampling between behaviour and proximal policy."""
    tis_cap: Annotated[float, Field(ge=1.0)] = 2.0
    normalization: Literal["token_mean", "sequence_mean"] = "token_mean"
    micro_batch_tokens: Positive = 8192
    """Padded tokens of one forward and backward pass."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    dtype: Dtype = "float32"
    optimizer: Literal["adamw"] = "adamw"
    gradient_checkpointing: bool = False
    threads: Positive = 1
    checkpoint_every_steps: Positive = 50
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 600.0
    checkpoint_every_mb: Positive = 256
    """Bytes of trained groups that wait in the broker for a durable checkpoint."""
    keep_checkpoints: Positive = 2
    reward_log_mb: Positive = 512
    """Size of the reward log in the run folder, over its rotated files."""

    @model_validator(mode="after")
    def _dtype_fits_stage(self) -> LearnerSettings:
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ValueError(
                "zero_stage = 0 with dtype = bfloat16: DeepSpeed silently takes another optimizer there; "
                "use zero_stage = 1"
            )
        if self.verifier_weight == self.rm_weight == 0:
            raise ValueError("verifier_weight = rm_weight = 0 leaves nothing to learn from; set one above 0")
        if self.clip_high >= 10:
            raise ValueError(f"clip_high = {self.clip_high:g} clips nothing; DAPO's clip-higher is 0.28")
        return self


class EvalSettings(Section):
    """Held-out accuracy, before and after."""

    problems: Annotated[int, Field(ge=0)] = 0
    """0 leaves evaluation out."""
    data: str = "reasoning-gym"
    """As data.train; for reasoning-gym problems that no other part of the run sees."""
    hub_split: str = "test"
    """Split of a hub data set; the train split would show what was trained on."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Both for the sampled figure; the greedy one takes the likeliest token."""


class SFTSettings(Section):
    """Cold start by supervised fine-tuning, on worked solutions or on the model's own right samples."""

    base: str = ""
    """Model to start from; empty makes a new small policy of 0.4 M parameters."""
    out: Path = Path("runs/policy")
    source: Literal["solutions", "samples"] = "solutions"
    """`solutions`: given ones. `samples`: what sft.base samples itself, as far as the filters keep it (the paper)."""
    examples: Positive = 2000
    """To train on. Solutions are fixed by run.seed; read from data.train, generated for reasoning-gym."""
    problems: Positive | None = None
    """That are sampled; unset: as many as examples."""
    completions: Positive = 4
    """Samples of each problem, by [sampling]."""
    filters: tuple[Literal["correct", "terminated", "language"], ...] = ("correct", "terminated", "language")
    """What a sample must be: right by the verifier, ended by itself, in sft.language."""
    language: str = "en"
    """ISO 639 code."""
    epochs: Positive = 2
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Stops earlier, whatever the epochs; the schedule follows the clock."""
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    batch_tokens: Positive = 8192
    warmup_fraction: Fraction = 0.05
    final_lr_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """What is left of lr at the end: 0 anneals the model, 1 keeps the rate and with it the room that RL uses."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    max_tokens: Positive = 1024
    threads: Positive = 2

    @property
    def taken(self) -> int:
        """Problems that the cold start uses up."""
        return (self.problems or self.examples) if self.source == "samples" else self.examples


class RMSettings(Section):
    """Reward model trained on labelled completions: samples of the policy, or a file of them."""

    out: Path = Path("runs/reward-model")
    data: Path | None = None
    """JSONL rows with a question, a completion and whether it is correct; unset: samples of model.policy."""
    completion_field: str = "completion"
    correct_field: str = "correct"
    """Fields of rm.data and rm.further beside data.question; the second holds true or false."""
    further: tuple[Path, ...] = ()
    """More such files, to measure the model on."""
    further_rows: Positive | None = None
    """At most so many rows of each of them."""
    prompts: Positive = 1000
    """Problems that are used nowhere else; of rm.data those with both labels first."""
    completions: Positive = 8
    """For each problem; of rm.data as many right as wrong ones, where there are."""
    label: Literal["math", "paper", "task"] = "math"
    """Who labels, as `verifier.kind`."""
    epochs: Positive = 2
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    lr: Annotated[float, Field(gt=0.0)] = 5e-4
    batch_tokens: Positive = 8192
    holdout_fraction: Annotated[float, Field(gt=0.0, lt=0.9)] = 0.1
    loss: Literal["logistic", "bradley_terry"] = "logistic"
    threads: Positive = 2
