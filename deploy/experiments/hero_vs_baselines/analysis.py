"""What results.json shows: means over seeds, and differences paired by seed, each with its interval.

Everything is worked out from the file, so that tables, report and README can be made again without a run. Intervals are
Student's, over seeds: 95 %. A claim holds when the interval lies on its side of zero, fails when it lies on the other,
and is open when zero is inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from common.accuracy import Estimate
from common.errors import DataError
from deploy.experiments.hero_vs_baselines import protocol
from deploy.experiments.hero_vs_baselines.results import Results, Run

By = Mapping[tuple[str, str], Mapping[int, Run]]
"""(arm, regime) to the runs by seed."""


@dataclass(frozen=True)
class Difference:
    """Of final accuracy: one arm less another, over the seeds that both have."""

    regime: str
    arm: str
    than: str
    by_seed: dict[int, float]
    estimate: Estimate

    @property
    def verdict(self) -> str:
        return verdict(self.estimate)


def student(values: Sequence[float]) -> Estimate:
    """Mean and 95 % interval of independent values; of a single one the interval has no end."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, -math.inf, math.inf)
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Estimate(mean, mean - half, mean + half)


def verdict(of: Estimate) -> str:
    """Of the claim that it is above zero."""
    if of.low > 0:
        return "holds"
    return "fails" if of.high < 0 else "open"


def by_arm(runs: Iterable[Run]) -> By:
    found: dict[tuple[str, str], dict[int, Run]] = {}
    for run in runs:
        found.setdefault((run["mode"], run["regime"]), {})[run["seed"]] = run
    return found


def finals(runs: By) -> dict[tuple[str, str], Estimate]:
    """Final accuracy of each arm in each regime."""
    return {key: student([run["final"] for run in own.values()]) for key, own in runs.items()}


def difference(runs: By, regime: str, arm: str, than: str) -> Difference | None:
    """None where they have no seed in common."""
    one, other = runs.get((arm, regime), {}), runs.get((than, regime), {})
    by_seed = {seed: one[seed]["final"] - other[seed]["final"] for seed in sorted(one.keys() & other.keys())}
    return Difference(regime, arm, than, by_seed, student(list(by_seed.values()))) if by_seed else None


def differences(runs: By) -> list[Difference]:
    """Every comparison that the protocol names, as far as its cells are there."""
    pairs = [("hero", than) for than in ("verifier", "rm", "blend")] + [("verifier", "rm"), ("oracle", "hero")]
    pairs += [("hero_gate_rm", "verifier"), ("hero_gate_rm", "hero")]
    found = [difference(runs, regime, arm, than) for regime in protocol.REGIMES for arm, than in pairs]
    found += [difference(runs, regime, arm, "hero") for arm, regime in runs if arm in protocol.ABLATIONS]
    found += [
        difference(runs, regime, arm, than)
        for regime in protocol.REGIMES
        for arm, than in (("dense_negatives", "dense_positives"), ("normalized", "normalized_weighting_off"))
    ]
    return [one for one in found if one]


def between_regimes(runs: By, arm: str, than: str, first: str, second: str) -> Estimate | None:
    """How much more `arm` gains over `than` in the second regime than in the first, paired by seed."""
    one, other = difference(runs, first, arm, than), difference(runs, second, arm, than)
    if not one or not other or not (seeds := one.by_seed.keys() & other.by_seed.keys()):
        return None
    return student([other.by_seed[seed] - one.by_seed[seed] for seed in sorted(seeds)])


def where_hero_gained_most(results: Results) -> str:
    """The regime of the ablations: of the highest mean gain of `hero` over `verifier`.

    Raises DataError before all seeds of both are there.
    """
    runs, gains = by_arm(results.runs), {}
    for regime in protocol.REGIMES:
        found = difference(runs, regime, "hero", "verifier")
        if not found or len(found.by_seed) < len(protocol.SEEDS):
            raise DataError(f"the main cells come first: hero and verifier lack seeds in the regime {regime}")
        gains[regime] = found.estimate.value
    return max(gains, key=gains.__getitem__)


def averaged(values: Iterable[Any]) -> float:
    """Mean of what is known; nan of nothing."""
    known = [float(value) for value in values if value is not None]
    return sum(known) / len(known) if known else math.nan


def gate(results: Results) -> dict[str, dict[str, float]]:
    """The gate's rates on each held-out set, means over seeds."""
    keys = ("right", "recall", "false_positive_rate", "precision")
    return {
        test: {key: averaged(seed["gate"][test][key] for seed in results.seeds.values()) for key in keys}
        for test in protocol.TESTS
    }


def reward_models(results: Results) -> dict[tuple[str, str], float]:
    """(labels, test) to AUROC within prompts on held-out samples, means over seeds."""
    return {
        (labels, test): averaged(s["reward_models"][labels][test]["auroc_within"] for s in results.seeds.values())
        for labels in ("task", "gate")
        for test in protocol.TESTS
    }


def lessons(runs: By, arm: str, regime: str, kind: str, key: str) -> float:
    """A figure of `groups.lessons`, mean over seeds; nan without."""
    return averaged(run["lessons"][kind][key] for run in runs.get((arm, regime), {}).values())
