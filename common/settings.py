"""Every setting of a run: one pydantic model per section of the TOML file.

The string below a field is its help text (`hero up --help` prints it with the default). What cannot work
is refused here, at start, with key, value and remedy; `common/config.py` reads file, environment and flags.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Dtype = Literal["float32", "bfloat16"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)


class RunSettings(Section):
    """What this run is and where its files go."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] = "hero"
    """Name of the run; letters, digits, `_.-`."""
    folder: Path = Path("runs/hero")
    """Settings, logs, reward log, checkpoints, export, summary.json and curves.png go here."""
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,96}$")] | None = None
    """Key prefix in the broker. `hero up` makes one and keeps it in the run folder; a worker on
    another host is given it."""
    steps: Positive = 250
    """Batches to train, one weight publication each."""
    seed: int = 0
    """Order of prompts, initialization, sampling of evaluation problems."""


class BrokerSettings(Section):
    """Redis >= 7.0 or Valkey."""

    url: str | None = None
    """redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// address. Unset: REDIS_URL, else a
    server that `hero up` starts."""
    claim_after_ms: Annotated[int, Field(ge=500)] = 30_000
    """A lease that was not renewed for so long is taken over by another worker."""
    max_deliveries: Positive = 3
    """After so many failed deliveries a message goes to the dead-letter stream."""
    memory_mb: Annotated[int, Field(ge=64)] = 1024
    """maxmemory of a server that `hero up` starts."""


class ModelSettings(Section):
    """The policy before the first step."""

    policy: str = ""
    """Folder in Hugging Face layout, or a hub name."""
    revision: str | None = None
    trust_remote_code: bool = False
    """Runs code that came with the model. Off unless you read that code."""


class DataSettings(Section):
    """Prompts with their answers."""

    train: str = ""
    """A JSONL file (.gz too), `hub:NAME` for a Hugging Face data set, or `reasoning-gym`."""
    hub_config: str | None = None
    hub_split: str = "train"
    question: str = "question"
    """Field that holds the prompt."""
    answer: str = "answer"
    """Field that holds the gold answer; text behind a last `####` is used alone (GSM8K)."""
    solution: str | None = None
    """Field that holds a worked solution (for `hero sft`); may be the answer's, as in GSM8K."""
    system_prompt: str = ""
    """Goes before every question, for sampling and training alike."""
    max_prompt_tokens: Positive = 1024
    """A longer prompt is a bad line: counted and left out."""
    limit: Positive | None = None
    """Use only so many rows (JSONL, hub), or generate so many problems (reasoning-gym)."""
    families: dict[str, dict[str, Any]] = {}
    """reasoning-gym families with their own settings, e.g. {chain_sum = {min_terms = 2}}."""


class SamplingSettings(Section):
    """How training completions are sampled. Anything that truncates the distribution is refused:
    the behaviour log-probabilities would not be the policy's."""

    completions: Positive = 8
    """Completions per prompt, the group size N."""
    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    max_tokens: Positive = 512
    """A longer completion is cut (finish reason `length`)."""
    top_p: float = 1.0
    top_k: int = 0

    @model_validator(mode="after")
    def _untruncated(self) -> SamplingSettings:
        if self.top_p != 1.0 or self.top_k > 0:
            raise ValueError(
                f"top_p = {self.top_p}, top_k = {self.top_k}: training needs the untruncated distribution, or every "
                "importance ratio is wrong; set top_p = 1 and top_k = 0 (evaluation has its own: eval.top_p)"
            )
        return self


class ActorSettings(Section):
    """Rollout actors (vLLM)."""

    count: Annotated[int, Field(ge=0)] = 1
    """Actors that `hero up` starts; more may join from other hosts at any time."""
    groups_in_flight: Positive = 32
    """Tickets that one actor works on at once; with sampling.completions this is vLLM's max_num_seqs."""
    dtype: Dtype = "float32"
    max_model_len: Positive = 2048
    """Prompt and completion together, in tokens."""
    kv_cache_gib: Annotated[float, Field(gt=0)] = 1.0
    """KV cache on a CPU."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.85
    tensor_parallel: Positive = 1
    threads: Positive = 1
    """OpenMP threads of one actor."""
    own_cores: bool = False
    """`hero up` gives each actor a core for every thread and the rest to all others: an eighth faster where
    actors compute on the CPU. Not for two runs on one machine, which would take the same cores."""
    max_logprob_difference: Annotated[float, Field(gt=0)] = 0.02
    """Largest allowed |engine - learner| log-probability of the fixed check sequences after an update;
    beyond it the actor stops with an error. float32 reaches 1e-4; bfloat16 needs about 0.15."""


class VerifierSettings(Section):
    """Rule verifier, in killable child processes."""

    kind: Literal["math", "paper", "task"] = "math"
    """`math`: our rules on math-verify. `paper`: math-verify alone, as the paper's framework wraps it. `task`:
    reasoning-gym's own scorer (needs reasoning-gym data)."""
    unevaluated: bool = False
    """`math` takes \\boxed{2+2} for 4: a sum or product of numbers that was left as it is."""
    children: Positive = 1
    """Child processes per scorer."""
    deadline_s: Annotated[float, Field(gt=0)] = 5.0
    """A completion that takes longer is killed and gets the status `timeout`."""
    memory_mb: Annotated[int, Field(ge=128)] = 1024
    """Address space of one child beyond what it starts with."""
    max_chars: Annotated[int, Field(ge=64)] = 4000
    """Only the tail of a longer completion is read when it has no \\boxed{} answer."""
    tasks_per_child: Positive = 20_000
    """A child is replaced after so many answers."""


class RewardModelSettings(Section):
    """Reward model: what scores completions. Not needed by `reward.mode = "verifier"`."""

    backend: Literal["classifier", "http", "likelihood", "none"] = "classifier"
    """`classifier`: sequence classification with one label, in the scorer's process; the raw logit is the score.
    `http`: the same behind a vLLM pooling server. `likelihood`: the mean probability of the gold answer after the
    completion's reasoning, under a causal LM; needs no trained reward model."""
    model: str | None = None
    """Folder in Hugging Face layout, or a hub name; for `http` that of the server's model, for its tokenizer."""
    revision: str | None = None
    trust_remote_code: bool = False
    url: str = ""
    """Of the server, for `http`: `vllm serve MODEL --runner pooling`. Its key, if any, is in REWARD_MODEL_API_KEY."""
    dtype: Dtype = "float32"
    batch_tokens: Positive = 8192
    """Tokens of one forward pass, or of one request, over several groups."""
    max_length: Positive = 4096
    """Prompt and completion together; longer ones get the status `context_overflow`."""
    truncation: Literal["none", "left"] = "none"
    """`left`: of what is longer the last max_length tokens are scored."""
    layout: Literal["chat", "pair"] | None = None
    """`chat`: the model's chat template. `pair`: the tokenizer's text pair. Unset: what a known model documents."""
    system_prompt: str | None = None
    """Unset: what a known model documents (AceMath's: "Please reason step by step, ..."), else none."""
    deadline_s: Annotated[float, Field(gt=0)] = 60.0
    """Of one request to the server."""
    attempts: Positive = 6
    """Of one request, while the server is away; then its groups are tried again, in the end dead-lettered."""
    concurrency: Positive = 4
    """Requests at a time."""


class RewardSettings(Section):
    """HERO: arXiv:2510.07242, Eq. 3 to 5. What of it reaches the policy is up to learner.advantage."""

    mode: Literal["hero", "verifier", "rm", "blend"] = "hero"
    alpha: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Half width of the incorrect band [-alpha, +alpha]."""
    beta: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.1
    """Half width of the correct band [1-beta, 1+beta]."""
    eps: Annotated[float, Field(gt=0.0)] = 1e-6
    lone: Literal["floor", "center"] = "floor"
    """Where a stratum of one, or of equal scores, goes in its band. `floor` is what Eq. 3 gives."""
    dense: Literal["both", "positives", "negatives", "none"] = "both"
    """Strata that get a band; the others keep the plain 0 or 1 (the paper's ablation)."""
    weighting: Literal["paper", "scale_free", "off"] = "paper"
    """`paper`: w of Eq. 4, in the reward model's units. `scale_free`: w of the z-score of sigma_u, so the same
    for a reward model of ten times the scores. `off`: every prompt counts the same."""
    w_min: Annotated[float, Field(ge=0.0)] = 0.4
    w_max: Annotated[float, Field(gt=0.0)] = 3.0
    k: float = 6.0
    """Slope of the weight over sigma_u - sigma_bar, under `paper`."""
    k_z: float = 1.7
    """Slope of the weight over (sigma_u - sigma_bar) / sigma_dev, under `scale_free`; 1.7 spreads w about evenly
    from w_min to w_max where sigma_u is normal."""
    sigma_momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.99
    """sigma_bar = momentum * sigma_bar + (1 - momentum) * sigma_u, once per group; sigma_dev likewise."""
    blend_weight: Fraction = 0.5
    """c of `blend`: c * r_rule + (1 - c) * r_RM."""

    @property
    def correct_floor(self) -> float:
        """The least r_hat of a right completion, in modes `hero` and `verifier`."""
        return 1 - self.beta if self.mode == "hero" and self.dense in ("both", "positives") else 1.0

    @model_validator(mode="after")
    def _bands_do_not_touch(self) -> RewardSettings:
        if self.alpha + self.beta >= 1.0:
            raise ValueError(
                f"alpha + beta = {self.alpha + self.beta:g}: at 1 or more a wrong completion can score above a right "
                "one; the paper uses 0.05 to 0.1 for each"
            )
        if self.w_min > self.w_max:
            raise ValueError(f"w_min = {self.w_min:g} is above w_max = {self.w_max:g}; swap them")
        return self


class ScorerSettings(Section):
    """Scorers: verifier, reward model, HERO."""

    count: Annotated[int, Field(ge=0)] = 2
    """Scorers that `hero up` starts; more may join at any time."""
    batch_groups: Positive = 16
    """Rollouts that one scorer takes at once."""
    threads: Positive = 1


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


class WeightsSettings(Section):
    """How new weights travel from the learner to the actors."""

    folder: Path | None = None
    """Folder that learner and actors share. Unset: one in /dev/shm, or in the run folder without it."""
    keep: Annotated[int, Field(ge=2)] = 3
    """Published versions that stay on disk."""


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
    filters: list[Literal["correct", "terminated", "language"]] = ["correct", "terminated", "language"]
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
    further: list[Path] = []
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


class Sections(BaseModel):
    """All sections together, and what must hold between them."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    run: RunSettings = RunSettings()
    broker: BrokerSettings = BrokerSettings()
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    sampling: SamplingSettings = SamplingSettings()
    actor: ActorSettings = ActorSettings()
    scorer: ScorerSettings = ScorerSettings()
    verifier: VerifierSettings = VerifierSettings()
    reward_model: RewardModelSettings = RewardModelSettings()
    reward: RewardSettings = RewardSettings()
    learner: LearnerSettings = LearnerSettings()
    weights: WeightsSettings = WeightsSettings()
    eval: EvalSettings = EvalSettings()
    sft: SFTSettings = SFTSettings()
    rm: RMSettings = RMSettings()


def contradictions(s: Sections) -> list[tuple[str, object, str]]:
    """What no section can see alone: (key, value, what is wrong and what to do)."""
    found: list[tuple[str, object, str]] = []
    if s.sampling.completions == 1 and s.learner.advantage != "corpo":
        found.append(
            (
                "sampling.completions",
                1,
                "a group of one has no advantage (r - mean = 0): set it to 2 or more, usually 8",
            )
        )
    if s.learner.advantage == "corpo" and s.reward.mode in ("rm", "blend"):
        found.append(
            ("learner.advantage", "corpo", f'has no baseline in reward.mode = "{s.reward.mode}": take hero or verifier')
        )
    if s.sft.source == "samples" and not s.sft.base:
        found.append(("sft.source", "samples", "a new small policy has nothing to sample: set sft.base to a model"))
    if s.reward_model.backend == "none" and s.reward.mode != "verifier":
        found.append(
            ("reward_model.backend", "none", f'reward.mode = "{s.reward.mode}" needs scores: set one, or "verifier"')
        )
    if (s.reward_model.backend == "http") != bool(s.reward_model.url):
        found.append(
            ("reward_model.url", repr(s.reward_model.url), 'goes with reward_model.backend = "http": set both, or none')
        )
    if s.learner.advantage in ("gdpo", "dara", "papo") and s.reward.mode == "verifier":
        found.append(
            (
                "learner.advantage",
                s.learner.advantage,
                'needs reward-model scores, reward.mode = "verifier" has none: take centered, or reward.mode = "hero"',
            )
        )
    if s.learner.min_rm_auroc > 0 and s.reward.mode == "verifier":
        found.append(
            (
                "learner.min_rm_auroc",
                s.learner.min_rm_auroc,
                'there is no reward model to judge in reward.mode = "verifier": set it to 0',
            )
        )
    if s.sampling.max_tokens + 1 > s.actor.max_model_len:
        found.append(
            (
                "sampling.max_tokens",
                s.sampling.max_tokens,
                f"does not fit actor.max_model_len = {s.actor.max_model_len}: raise that, or lower this",
            )
        )
    elif s.data.max_prompt_tokens + s.sampling.max_tokens > s.actor.max_model_len:
        found.append(
            (
                "data.max_prompt_tokens",
                s.data.max_prompt_tokens,
                f"with sampling.max_tokens = {s.sampling.max_tokens} is above actor.max_model_len = "
                f"{s.actor.max_model_len}: set max_model_len >= their sum",
            )
        )
    if s.data.train == "reasoning-gym" and not s.data.families:
        found.append(
            ("data.families", "{}", "reasoning-gym needs families, e.g. families = {chain_sum = {min_terms = 2}}")
        )
    if s.verifier.kind == "task" and s.data.train not in ("", "reasoning-gym"):
        found.append(
            ("verifier.kind", "task", f'judges reasoning-gym problems only, data.train is {s.data.train!r}: use "math"')
        )
    return found
