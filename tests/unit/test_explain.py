"""`hero score --explain`: the numbers of one group, from its texts to its advantages."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from common.errors import ConfigError
from common.settings import LearnerSettings, RewardSettings
from common.sigma import Sigma
from deploy.explain import explain
from learner.advantage import Rule, advantages
from scorer.rewards import shape

SCORES = [2.0, -1.0, 0.5, 3.0]
CORRECT = [True, False, False, True]


def shown(rule: Rule = "centered", correct: list[bool] = CORRECT, min_rm_auroc: float = 0.0, **options: object) -> str:
    reward = RewardSettings.model_validate(options)
    learner = LearnerSettings(advantage=rule, min_rm_auroc=min_rm_auroc)
    made = shape(reward.mode, correct, SCORES, sigma=Sigma(0.9, 0.25), options=reward)
    row = {
        "question": "6 * 7 = ?",
        "gold": "42",
        "completions": ["x" * 500 + r" so \boxed{42}", "41\x1b[31m", "no idea", "[bold]42[/bold]"],
        "statuses": ["correct" if right else "no_answer" for right in correct],
        "rules": ["same text", None, None, "same number"],
        "extracted": ["42", "41", None, "[bold]42[/bold]"],
        "rm_scores": SCORES,
        "r_hat": made.r_hat.tolist(),
        "rewards": made.rewards.tolist(),
        "weight": made.weight,
        "sigma_u": made.sigma_u,
        "sigma_bar": made.sigma_bar,
        "sigma_dev": made.sigma_dev,
    }
    out = io.StringIO()
    Console(file=out, width=160).print(explain(row, reward, learner))
    return out.getvalue()


def test_every_number_of_the_group_is_there() -> None:
    text = shown()
    made = shape("hero", CORRECT, SCORES, sigma=Sigma(0.9), options=RewardSettings())
    gains = advantages(made.r_hat, made.weight, "centered")
    for value in [*SCORES, *made.r_hat, *made.rewards, *gains]:
        assert f"{value:+.3f}" in text
    assert f"= {made.weight:.3f} at sigma_u {made.sigma_u:.3f}, sigma_bar 0.900" in text
    assert "... xxx" in text and r"so \boxed{42}" in text and "same number" in text
    assert "\x1b" not in text and "[bold]42[/bold]" in text, "what a model wrote neither steers nor is read as markup"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dense": "positives"}, "wrong: 0\n"),
        ({"dense": "none"}, "right: 1\n"),
        ({"weighting": "off"}, "w = 1 (reward.weighting is off)"),
        ({"weighting": "scale_free"}, "(1 + exp(-1.7 (sigma_u - sigma_bar) / sigma_dev)) = "),
        ({"weighting": "scale_free"}, "sigma_bar 0.900, sigma_dev 0.250"),
        ({"lone": "center"}, "its middle"),
        ({"mode": "verifier"}, "mode verifier): 1 or 0; w = 1"),
        ({"mode": "rm"}, "the RM score"),
        ({"mode": "blend"}, "0.5 * verdict"),
    ],
)
def test_what_is_told_follows_the_settings(options: dict[str, object], says: str) -> None:
    assert says in "\n".join(line.rstrip() for line in shown(**options).splitlines()) + "\n"


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("normalized", "w cancels"),
        ("normalized_then_weighted", "/ (std"),
        ("corpo", "max(its mean, w * 0.9)"),
        ("gdpo", "n(1 n(verdict) + 1 n(RM score))"),
        ("dara", "min(3, sqrt(pi_ref / pi))"),
        ("papo", "1 n(RM score among the right ones, else 0)"),
    ],
)
def test_the_advantage_rule_is_named(rule: Rule, says: str) -> None:
    assert says in shown(rule)


@pytest.mark.parametrize("rule", ["gdpo", "dara"])
def test_a_rule_over_the_batch_says_that_the_group_is_alone(rule: Rule) -> None:
    assert "a batch that is this group alone" in " ".join(shown(rule).split())


def test_a_gate_is_told_where_no_verdict_ranks() -> None:
    says = "or 0, while the running AUROC is below 0.55"
    assert says in shown(correct=[False] * 4, min_rm_auroc=0.55)
    assert says not in shown(min_rm_auroc=0.55) and says not in shown(correct=[False] * 4)


def test_a_row_without_scores_has_no_separate_channels() -> None:
    row = {"rm_scores": None, "r_hat": [1.0, 0.0], "weight": 1.0, "statuses": ["correct", "wrong"]}
    with pytest.raises(ConfigError, match="'gdpo' needs reward-model scores"):
        explain(row, RewardSettings(), LearnerSettings(advantage="gdpo"))
