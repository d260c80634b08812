"""What is trained: [learner], [sft], [rm]."""

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
    over_sampling: Annotated[float, Field(ge=0.0, le=4.0)] = 0.0
    """This share of more groups is in flight than the staleness bound needs, so that no step waits for its slowest one;
    what comes too late is dropped. Long completions come late: batches get shorter ones."""
    truncated: Literal["keep", "mask"] = "keep"
    """What was cut at sampling.max_tokens: `mask` leaves it out of the loss; its group's advantages count it still."""
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
    """Of matrices; biases and the gains of norms never decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps over which the rate rises to lr."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the rate after that, to the last step of the run."""
    final_lr_fraction: Fraction = 0.0
    """What `linear` and `cosine` leave of lr at the end."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """A longer gradient is cut to this length."""
    max_skipped_batches: Positive = 5
    """A gradient that is not finite is never applied; so many batches in a row with one end the run, which names their
    tickets."""
    mini_steps: Positive = 1
    """Optimizer steps per batch, the proximal policy fixed (the paper: 4)."""
    objective: Literal["ppo", "cispo", "gspo"] = "ppo"
    """What is raised. `ppo`: the clipped ratio of each token. `gspo`: that of the whole sequence, its length-th root.
    `cispo`: log-probabilities by their clipped weight against the sampler, which corrects for it too."""
    clip_low: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    clip_high: Annotated[float, Field(gt=0.0)] | None = None
    """The ratio is clipped to [1 - clip_low, 1 + clip_high]. Unset: 0.2 and 0.28 for `ppo`, 0.0003 and 0.0004 for
    `gspo`, 1 (no lower bound) and 4 for `cispo`."""
    correction: Literal["none", "tis", "icepop", "decoupled"] = "tis"
    """Weight of a token for what lies between behaviour and proximal policy, by their ratio m: `tis` min(m, tis_cap),
    `icepop` m from icepop_low to icepop_high and 0 elsewhere, `decoupled` m. Under `gspo` m is the sequence's."""
    tis_cap: Annotated[float, Field(ge=1.0)] = 2.0
    icepop_low: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    icepop_high: Annotated[float, Field(ge=1.0)] = 5.0
    sequence_mask: Literal["none", "product", "geometric"] = "none"
    """Leaves out sequences whose ratio of proximal to behaviour policy is beyond mask_low or mask_high: the `product`
    over their tokens, or its length-th root."""
    mask_low: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    mask_high: Annotated[float, Field(ge=1.0)] | None = None
    """Unset: 0.1 and 10 for `product`, 0.99 and 1.01 for `geometric`."""
    kl_coefficient: Annotated[float, Field(ge=0.0)] = 0.0
    """Of the divergence from model.policy, the reference; above 0 a whole copy of that is on each rank, but with
    adapters."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k2"
    """Of that divergence in the loss. On average over sampled tokens `k2` has the gradient of KL(policy, reference),
    `k3` (GRPO's) that of KL(reference, policy), nearly the same while both are close, `k1` none: it is noise alone."""
    entropy_coefficient: Annotated[float, Field(ge=0.0)] = 0.0
    """Of an entropy bonus."""
    normalization: Literal["token_mean", "sequence_mean", "fixed_length"] = "token_mean"
    """A token's part of the mean: 1 / tokens of the batch; 1 / (sequences * its length); 1 / (sequences *
    sampling.max_tokens)."""
    micro_batch_tokens: Positive = 8192
    """Tokens of one forward and backward pass, padding included."""
    packing: Literal["auto", "off"] = "auto"
    """`auto`: sequences share a row without padding where the model computes the same then (tried when it is loaded,
    the log says), else rows of like lengths. `off`: always rows."""
    ranks: Positive = 1
    """Processes that train together, each on a share of every batch; on GPUs one for each."""
    zero_stage: Literal[0, 1, 2, 3] = 1
    """What the ranks divide among them: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 the weights too."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What DeepSpeed keeps in the memory of the CPU: the optimizer's state and its step (zero_stage 1 to 3), or the
    weights too (zero_stage 3)."""
    dtype: Dtype = "float32"
    lora_rank: Annotated[int, Field(ge=0)] = 0
    """Of low-rank adapters (LoRA, needs peft) that are trained in place of the weights; 0 trains the weights. Adapters
    take about ten times the lr."""
    lora_alpha: Annotated[float, Field(gt=0.0)] = 32.0
    """What the adapters say counts alpha / rank times."""
    lora_targets: tuple[str, ...] = ()
    """Linear layers that get one, e.g. ["q_proj", "v_proj"]; none named means all but the output layer."""
    gradient_checkpointing: bool = False
    threads: Positive = 1
    checkpoint_every_steps: Positive = 50
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 600.0
    checkpoint_every_mb: Positive = 256
    """Bytes of trained groups that wait in the broker for a durable checkpoint."""
    keep_checkpoints: Positive = 2
    """The newest ones."""
    keep_best: bool = False
    """Keeps the best one too, with a model folder in it: `checkpoints/best/export`. Best by evaluation beside training,
    without one by the mean share of right completions in the batches since the last checkpoint."""
    export_every_steps: Annotated[int, Field(ge=0)] = 0
    """A model folder every so many steps, for `hero eval`: `exports/step-00000050` in the run folder. 0 is off; that of
    the last step is `export`."""
    reward_log_mb: Positive = 512
    """Size of the reward log in the run folder, over its rotated files."""

    @model_validator(mode="after")
    def _dtype_fits_stage(self) -> LearnerSettings:
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ValueError(
                "zero_stage = 0 with dtype = bfloat16: DeepSpeed silently takes another optimizer there; "
                "use zero_stage = 1"
            )
        if self.offload != "none" and self.zero_stage < (needed := 3 if self.offload == "parameters" else 1):
            raise ValueError(
                f'offload = "{self.offload}" with zero_stage = {self.zero_stage}: DeepSpeed offloads those from stage '
                f"{needed} on; set zero_stage = {needed}"
            )
        if self.verifier_weight == self.rm_weight == 0:
            raise ValueError("verifier_weight = rm_weight = 0 leaves nothing to learn from; set one above 0")
        if self.lora_targets and not self.lora_rank:
            raise ValueError(
                f"lora_targets = {list(self.lora_targets)} have no effect with lora_rank = 0; set it to 16"
            )
        return self

    @model_validator(mode="after")
    def _objective_is_consistent(self) -> LearnerSettings:
        if self.clip_range[1] >= 10:
            raise ValueError(f"clip_high = {self.clip_high:g} clips nothing; DAPO's clip-higher is 0.28")
        if self.objective == "cispo" and self.correction != "none":
            raise ValueError(
                f"correction = {self.correction} with objective = cispo, whose weight is pi / mu already, would "
                'correct twice; set correction = "none"'
            )
        if self.objective == "gspo" and max(self.clip_range) > 0.1:
            raise ValueError(
                f"clip_low, clip_high = {self.clip_low}, {self.clip_high} with objective = gspo clip nothing, its "
                "ratio is a mean over the sequence; leave them unset for 0.0003 and 0.0004"
            )
        return self

    @property
    def clip_range(self) -> tuple[float, float]:
        """clip_low and clip_high; unset, those of the objective: DAPO's, GSPO's, and a cap of 5 as in ScaleRL."""
        low, high = {"ppo": (0.2, 0.28), "gspo": (3e-4, 4e-4), "cispo": (1.0, 4.0)}[self.objective]
        return self.clip_low or low, self.clip_high or high

    @property
    def mask_band(self) -> tuple[float, float]:
        """mask_low and mask_high; unset, those of the mask."""
        low, high = (0.99, 1.01) if self.sequence_mask == "geometric" else (0.1, 10.0)
        return self.mask_low or low, self.mask_high or high


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
    base: str = ""
    """Causal LM whose backbone becomes the reward model; empty takes model.policy. The paper's is a larger one."""
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
