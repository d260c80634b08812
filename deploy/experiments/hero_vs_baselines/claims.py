"""The paper's claims against the results, a line each: what the README says follows from here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from common.accuracy import Estimate
from deploy.experiments.hero_vs_baselines import analysis, protocol
from deploy.experiments.hero_vs_baselines.analysis import By, Difference
from deploy.experiments.hero_vs_baselines.results import Results

LEAST_SEEDS = 3
"""A difference of fewer is no figure to quote."""


def lines(results: Results) -> list[str]:
    """As far as the cells are there; accuracies and their differences in percentage points."""
    runs = analysis.by_arm(results.runs)
    return [line for line in _all(results, runs) if line]


def _all(results: Results, runs: By) -> Iterator[str]:
    yield _gate(results)
    yield _reward_models(results)
    yield _over("HERO beats the verifier alone", runs, "hero", "verifier")
    yield _over("The verifier alone beats the reward model alone", runs, "verifier", "rm")
    yield _over("HERO beats the plain blend", runs, "hero", "blend")
    yield _largest_on_hard(runs)
    yield _uniform(runs)
    yield _over("HERO without an oracle's labels still beats the verifier", runs, "hero_gate_rm", "verifier")
    yield _over("An oracle's 0/1 reward beats HERO", runs, "oracle", "hero")
    yield _ablations(runs)
    yield _over("Dense negatives alone beat dense positives alone", runs, "dense_negatives", "dense_positives")
    yield _inert(runs)


def points(of: Estimate) -> str:
    """`+3.1 [1.0, 5.2]`."""
    return f"{100 * of.value:+.1f} {interval(of)}"


def interval(of: Estimate) -> str:
    """`[1.0, 5.2]`, in percentage points."""
    return f"[{_end(of.low)}, {_end(of.high)}]"


def _end(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else "?"


def _compared(found: Difference) -> str:
    return f"{found.regime} {points(found.estimate)}, {found.verdict}"


def _over(claim: str, runs: By, arm: str, than: str) -> str:
    found = (_difference(runs, regime, arm, than) for regime in protocol.REGIMES)
    told = "; ".join(_compared(one) for one in found if one)
    return f"{claim}: {told}." if told else ""


def _difference(runs: By, regime: str, arm: str, than: str) -> Difference | None:
    found = analysis.difference(runs, regime, arm, than)
    return found if found and len(found.by_seed) >= LEAST_SEEDS else None


def _gate(results: Results) -> str:
    rates = analysis.gate(results)
    told = "; ".join(
        f"{test} recall {100 * rate['recall']:.1f} %, false positives {100 * rate['false_positive_rate']:.2f} %"
        for test, rate in rates.items()
    )
    return f"The gate on samples of the cold-started policy: {told}."


def _reward_models(results: Results) -> str:
    found = analysis.reward_models(results)
    told = "; ".join(
        f"learnt from the {labels}'s labels "
        + ", ".join(f"{test} {found[labels, test]:.3f}" for test in protocol.TESTS)
        for labels in ("task", "gate")
    )
    return f"Reward models, AUROC within prompts on held-out samples: {told}."


def _largest_on_hard(runs: By) -> str:
    found = analysis.between_regimes(runs, "hero", "verifier", "easy", "hard")
    if not found:
        return ""
    return (
        "HERO gains more over the verifier on hard-to-verify problems than on easy ones: "
        f"{points(found)}, {analysis.verdict(found)}."
    )


def _uniform(runs: By) -> str:
    """What the groups teach in which the gate says the same of every completion."""
    told = []
    for regime in protocol.REGIMES:
        of = partial(analysis.lessons, runs, "hero", regime)
        share = of("all_wrong", "groups") + of("all_right", "groups")
        pull = of("all_wrong", "pull") + of("all_right", "pull")
        teachable, agreement = of("all_wrong", "teachable"), of("all_wrong", "agreement")
        ranked = f", ranked right in {100 * agreement:.0f} % of pairs" if math.isfinite(agreement) else ""
        if math.isfinite(share):
            told.append(
                f"{regime} {100 * share:.0f} % of groups with {100 * pull:.0f} % of the advantage; of the all-wrong "
                f"ones {100 * teachable:.0f} % hold right answers{ranked}"
            )
    return f"What HERO makes of groups that the gate calls uniform: {'; '.join(told)}." if told else ""


def _ablations(runs: By) -> str:
    regimes = sorted({regime for arm, regime in runs if arm in protocol.ABLATIONS})
    found = [
        (arm, one)
        for regime in regimes
        for arm in protocol.ABLATIONS
        if (one := _difference(runs, regime, arm, "hero"))
    ]
    told = ", ".join(f"{arm} {points(one.estimate)}" for arm, one in found)
    return f"Changed from HERO in the regime {', '.join(regimes)}: {told}." if found else ""


def _inert(runs: By) -> str:
    found = [_difference(runs, regime, "normalized", "normalized_weighting_off") for regime in protocol.REGIMES]
    told = "; ".join(f"{one.regime} {points(one.estimate)}" for one in found if one)
    return f"Divided by the group's deviation, the weight of Eq. 5 changes nothing but noise: {told}." if told else ""
