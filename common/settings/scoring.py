"""Rewards: [scorer], [verifier], [reward_model], [reward]."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.settings.section import Dtype, Fraction, Positive, Section


class ScorerSettings(Section):
    """Scorers: verifier, reward model, HERO."""

    count: Annotated[int, Field(ge=0)] = 2
    """Scorers that `hero up` starts; more may join at any time."""
    most: Positive | None = None
    """Unset: `count` it is. Else `hero up` starts up to so many while rollouts wait, and ends them down to `count`."""
    lag_each: Annotated[float, Field(gt=0)] = 16
    """Rollouts that wait, for each scorer there should be."""
    pending_each: Annotated[float, Field(gt=0)] = 32
    """Rollouts that are being scored, for each scorer there should be."""
    window_s: Annotated[float, Field(ge=0)] = 60
    """A scorer ends when nothing has asked for it for so long."""
    batch_groups: Positive = 16
    """Rollouts that one scorer takes at once."""
    threads: Positive = 1

    @property
    def at_most(self) -> int:
        """Scorers that `hero up` may have."""
        return self.most or self.count


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
