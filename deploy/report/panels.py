"""Which numbers of the metrics log are drawn together, and under which names. Data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """Numbers of a step that belong together, under the names that the plot gives them."""

    title: str
    names: Mapping[str, str]
    stacked: bool = False
    """Parts of a whole, one upon the other."""
    level: float | None = None
    """Of a line across, for the eye."""
    smooth: bool = True
    """Off for what is set or counted, and has no noise."""


def named(**names: str) -> dict[str, str]:
    return names


PHASES = ("waiting", "proximal", "forward", "backward", "optimizer", "log", "publish", "checkpoint")
STATUS = "status."
"""Shares of the completions by status: made of the log's status_* by `deploy.report.derived`."""

ELSEWHERE = ("time", "tickets.", "drops.", "status_", STATUS, "seconds.step", "uniform_group_share")
"""How names begin that tables have, or other curves say."""

COLORS = {"right": 2, "correct": 2, "all right": 2, "not right": 1, "wrong": 1, "all wrong": 1}
"""Places in the palette by label: right is green and wrong is vermilion, wherever they are."""

SECTIONS: Mapping[str, Sequence[Panel]] = {
    "Rewards": (
        Panel("Reward", named(reward_mean="reward", r_hat_mean="r_hat (bands)")),
        Panel("Reward by verdict", named(reward_right="right", reward_wrong="not right")),
        Panel("Verifier accuracy of training samples", named(accuracy="accuracy")),
        Panel("HERO weight w", named(weight_mean="w")),
        Panel("Size of the advantages", named(advantage_abs_mean="mean |advantage|")),
        Panel("Spread of rewards", named(reward_std="deviation of the rewards")),
    ),
    "Reward model": (
        Panel("Mean score of the reward model", named(rm_score_mean="score")),
        Panel(
            "AUROC of the reward model against the verifier, in mixed groups",
            named(rm_auroc_mixed_groups="of the step", rm_auroc_running="running mean"),
            level=0.5,
        ),
        Panel(
            "Spread of the scores in a group",
            named(sigma_u_mean="sigma_u", sigma_bar="sigma_bar", sigma_dev="sigma_dev"),
        ),
    ),
    "Groups and verdicts": (
        Panel(
            "Groups by the verdicts in them",
            named(all_wrong_share="all wrong", mixed_share="mixed", all_right_share="all right"),
            stacked=True,
        ),
        Panel(
            "Groups that teach nothing",
            named(zero_advantage_group_share="without advantage", gated_group_share="gated: reward model not trusted"),
        ),
        Panel("Statuses of the verifier", {}, stacked=True),
    ),
    "Policy": (
        Panel(
            "Staleness in steps",
            named(staleness_max="oldest", staleness_mean="mean", staleness_min="newest"),
            smooth=False,
        ),
        Panel("Loss", named(loss="loss")),
        Panel("KL, in nats", named(kl_behaviour="behaviour", kl_proximal="proximal", kl_reference="reference")),
        Panel("Entropy, in nats", named(entropy="entropy")),
        Panel("Clipped tokens", named(clip_share_low="low", clip_share_high="high")),
        Panel("Gradient norm", named(grad_norm="before clipping")),
        Panel("Learning rate", named(lr="learning rate"), smooth=False),
        Panel(
            "Engine against learner: |difference of log-probabilities|",
            named(logprob_difference_max="largest", logprob_difference_mean="mean"),
        ),
        Panel(
            "Off-policy correction",
            named(correction_weight_mean="mean weight", ess="effective sample size", ratio_mean="mean ratio"),
        ),
        Panel(
            "Corrected tokens and masked sequences",
            named(
                correction_capped_share="capped",
                correction_zeroed_share="zeroed",
                masked_sequence_share="masked sequences",
            ),
        ),
    ),
    "Completions": (
        Panel("Tokens of a completion", named(completion_tokens_max="longest", completion_tokens_mean="mean")),
        Panel("Completions cut off at the limit", named(truncated_share="share")),
    ),
    "Speed": (
        Panel("Sampled tokens a second, over all of the run", named(sampled_tokens_per_second="tokens/s")),
        Panel("Tokens a second in the learner's step", named(tokens_per_second="tokens/s")),
        Panel("Seconds of a step by phase", {f"seconds.{name}": name for name in PHASES}, stacked=True),
        Panel("Seconds from step to step", named(seconds_between_steps="seconds")),
        Panel("Tickets in flight", {"tickets.in_flight": "tickets"}, smooth=False),
        Panel("Model FLOPs utilization", named(mfu="MFU")),
    ),
}
