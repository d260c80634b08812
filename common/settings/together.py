"""All sections together, and what must hold between them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from common.settings.evaluation import EvalSettings
from common.settings.running import (
    ActorSettings,
    BrokerSettings,
    DataSettings,
    MetricsSettings,
    ModelSettings,
    RunSettings,
    SamplingSettings,
    TracingSettings,
    WeightsSettings,
)
from common.settings.scoring import RewardModelSettings, RewardSettings, ScorerSettings, VerifierSettings
from common.settings.training import LearnerSettings, RMSettings, SFTSettings


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
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()
    eval: EvalSettings = EvalSettings()
    sft: SFTSettings = SFTSettings()
    rm: RMSettings = RMSettings()


def contradictions(s: Sections) -> list[tuple[str, object, str]]:
    """What no section can see alone: (key, value, what is wrong and what to do)."""
    advantage, mode, sampled = s.learner.advantage, s.reward.mode, s.sampling.max_tokens
    length, url = s.actor.max_model_len, s.reward_model.url
    generated = [one for one in s.eval.sets.values() if one.source == "reasoning-gym"]
    checks = [
        (
            s.sampling.completions == 1 and advantage != "corpo",
            "sampling.completions",
            1,
            "a group of one has no advantage (r - mean = 0): set it to 2 or more, usually 8",
        ),
        (
            advantage == "corpo" and mode in ("rm", "blend"),
            "learner.advantage",
            advantage,
            f'has no baseline in reward.mode = "{mode}": take hero or verifier',
        ),
        (
            advantage in ("gdpo", "dara", "papo") and mode == "verifier",
            "learner.advantage",
            advantage,
            'needs reward-model scores, reward.mode = "verifier" has none: take centered, or reward.mode = "hero"',
        ),
        (
            s.learner.min_rm_auroc > 0 and mode == "verifier",
            "learner.min_rm_auroc",
            s.learner.min_rm_auroc,
            'there is no reward model to judge in reward.mode = "verifier": set it to 0',
        ),
        (
            s.reward_model.backend == "none" and mode != "verifier",
            "reward_model.backend",
            "none",
            f'reward.mode = "{mode}" needs scores: set one, or "verifier"',
        ),
        (
            (s.reward_model.backend == "http") != bool(url),
            "reward_model.url",
            repr(url),
            'goes with reward_model.backend = "http": set both, or none',
        ),
        (
            s.scorer.most is not None and s.scorer.most < s.scorer.count,
            "scorer.most",
            s.scorer.most,
            f"is below scorer.count = {s.scorer.count}: raise it, or leave it out",
        ),
        (
            s.sft.source == "samples" and not s.sft.base,
            "sft.source",
            "samples",
            "a new small policy has nothing to sample: set sft.base to a model",
        ),
        (
            sampled + 1 > length,
            "sampling.max_tokens",
            sampled,
            f"does not fit actor.max_model_len = {length}: raise that, or lower this",
        ),
        (
            sampled + 1 <= length < s.data.max_prompt_tokens + sampled,
            "data.max_prompt_tokens",
            s.data.max_prompt_tokens,
            f"with sampling.max_tokens = {sampled} is above actor.max_model_len = {length}: set max_model_len >= their "
            "sum",
        ),
        (
            s.data.train == "reasoning-gym" and not s.data.families,
            "data.families",
            "{}",
            "reasoning-gym needs families, e.g. families = {chain_sum = {min_terms = 2}}",
        ),
        (
            s.verifier.kind == "task" and s.data.train not in ("", "reasoning-gym"),
            "verifier.kind",
            "task",
            f'judges reasoning-gym problems only, data.train is {s.data.train!r}: use "math"',
        ),
        (
            bool(generated) and s.eval.problems is None,
            "eval.problems",
            "None",
            "eval.data has reasoning-gym, which has no end: say how many problems",
        ),
        (
            not s.data.families and not all(one.families for one in generated),
            "data.families",
            "{}",
            "eval.data has reasoning-gym, which needs families, here or in its set: {chain_sum = {min_terms = 2}}",
        ),
        (
            s.tracing.endpoint is not None and s.tracing.share == 0,
            "tracing.share",
            0,
            "traces no ticket, so tracing.endpoint has no effect: set it to 0.01, say, or leave the endpoint out",
        ),
        (
            s.eval.every_steps > 0 and not s.eval.sets,
            "eval.every_steps",
            s.eval.every_steps,
            "there is nothing to evaluate on: set eval.data, or this to 0",
        ),
        (
            s.eval.every_steps > 0 and s.actor.groups_in_flight == 1,
            "actor.groups_in_flight",
            1,
            "the one slot would be evaluation's (eval.every_steps), and training would wait: set it to 2 or more",
        ),
        (
            s.eval.every_steps > 0 and s.verifier.kind == "task" and len(generated) < len(s.eval.sets),
            "verifier.kind",
            "task",
            'judges reasoning-gym problems only, eval.data has others (eval.every_steps): use "math"',
        ),
        (
            s.eval.max_tokens is not None and s.eval.max_tokens + 1 > length,
            "eval.max_tokens",
            s.eval.max_tokens,
            f"does not fit actor.max_model_len = {length}: raise that, or lower this",
        ),
    ]
    return [(key, value, text) for wrong, key, value, text in checks if wrong]
