"""Accuracy from samples: pass@k, majority vote, intervals over problems, and models compared on the same problems.

A problem is the unit: its samples share their difficulty, so that every interval and test is over problems, never over
completions. Nothing here is random but `macro_p`, which is seeded. After "Adding Error Bars to Evals",
arXiv:2411.00640, with score intervals instead of normal ones, which fail near 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Z95 = 1.959963984540054
"""The normal quantile of a 95 % interval."""
LEAST_P = 1e-12
"""A smaller p-value is lost in rounding."""
MACRO_DRAWS = 100_000


@dataclass(frozen=True)
class Estimate:
    """`Estimate(0.452, 0.427, 0.477)`: a figure and its 95 % interval."""

    value: float
    low: float
    high: float


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that one of k samples is right, unbiased: 1 - C(n - c, k) / C(n, k).

    Eq. 1 of arXiv:2107.03374, as its stable product. Raises ValueError for k above the samples there are.
    """
    if not 1 <= k <= samples or not 0 <= correct <= samples:
        raise ValueError(f"pass@{k} of {samples} samples, {correct} of them right: k must be 1 to {samples}")
    return 1.0 - math.prod(1.0 - k / i for i in range(samples - correct + 1, samples + 1))


def majority(right: int, wrong: Sequence[int]) -> float:
    """Whether the most frequent answer is the right one (self-consistency, arXiv:2203.11171).

    right: votes for the right answer; wrong: for each wrong one. Of t answers with the most votes, the right one among
    them, 1 / t is credited: what drawing one of them brings on average. 0 where nobody votes.
    """
    most = max([right, *wrong])
    return 0.0 if right == 0 or right < most else 1.0 / (1 + sum(votes == most for votes in wrong))


def mean(values: ArrayLike, samples: int) -> Estimate:
    """Mean over problems of a figure in [0, 1], each problem's from so many samples.

    Wilson's score interval with the effective number of observations p (1 - p) / Var(mean) in place of their count (as
    Korn and Graubard 1998 do with Clopper and Pearson's). With one right or wrong sample of each problem that is the
    number of problems, and the interval Wilson's own; at most it is the number of all samples.
    Raises ValueError without a problem.
    """
    x = np.asarray(values, dtype=np.float64)
    m, p = len(x), float(np.mean(x)) if len(x) else math.nan
    if m == 0:
        raise ValueError("no problem, no accuracy")
    variance, spread = float(np.var(x)) / m, max(p * (1 - p), 0.0)
    n = float(m) if spread < 1e-12 else min(max(m, spread / max(variance, 1e-300)), m * samples)
    middle, half = p + Z95**2 / (2 * n), Z95 * math.sqrt(spread / n + Z95**2 / (4 * n * n))
    scale = 1 + Z95**2 / n
    return Estimate(p, max(0.0, min(p, (middle - half) / scale)), min(1.0, max(p, (middle + half) / scale)))


def macro(parts: Sequence[Estimate]) -> Estimate:
    """Mean of the figures of independent sets, each set counting the same.

    The interval joins theirs by the square-and-add rule (Zou and Donner 2008): the distances of the limits from the
    values are added as standard errors are.
    """
    value = math.fsum(e.value for e in parts) / len(parts)
    below, above = ([distance / len(parts) for distance in side] for side in _distances(parts))
    return Estimate(value, value - math.hypot(*below), value + math.hypot(*above))


def difference(first: ArrayLike, second: ArrayLike, samples: tuple[int, int]) -> Estimate:
    """Mean of second - first over the same problems, in [-1, 1]; `samples` are those of each problem.

    Square-and-add of the two intervals, less what the correlation over problems takes away: for single samples
    Newcombe's score interval of a paired difference (1998).
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    before, after = mean(a, samples[0]), mean(b, samples[1])
    deviations = float(np.std(a) * np.std(b))
    r = float(np.mean((a - a.mean()) * (b - b.mean()))) / deviations if deviations > 1e-12 else 0.0
    (below_a, below_b), (above_a, above_b) = _distances((before, after))
    value = after.value - before.value
    low = value - math.sqrt(max(0.0, below_b**2 + above_a**2 - 2 * r * below_b * above_a))
    high = value + math.sqrt(max(0.0, above_b**2 + below_a**2 - 2 * r * above_b * below_a))
    return Estimate(value, max(-1.0, low), min(1.0, high))


def sign_flips(steps: ArrayLike) -> tuple[Floats, int]:
    """The null distribution of a sum over problems whose signs are all equally likely: (probabilities, offset).

    steps: whole numbers [m], each problem's difference in a common unit. Entry i is the probability of the sum
    i - offset over all 2^m choices of signs: the inverse Fourier transform of prod cos(t |step|), exact to 1e-13.
    """
    sizes, counts = np.unique(np.abs(np.asarray(steps, dtype=np.int64)), return_counts=True)
    offset = int(sizes @ counts)
    length = 2 * offset + 1
    angles = 2 * np.pi * np.arange(length) / length
    spectrum = np.ones(length)
    for size, count in zip(sizes, counts, strict=True):
        spectrum *= np.cos(angles * size) ** count
    chances = np.fft.fftshift(np.fft.ifft(spectrum).real).clip(0.0)
    return chances / chances.sum(), offset


def paired_p(steps: ArrayLike) -> float:
    """Two-sided p-value of the sign-flip permutation test over problems: no difference, whatever the sign.

    Exact, down to LEAST_P. For single samples, steps of -1, 0 and 1, it is McNemar's exact test.
    """
    chances, offset = sign_flips(steps)
    sums = np.abs(np.arange(len(chances)) - offset)
    return min(1.0, max(LEAST_P, float(chances[sums >= abs(int(np.sum(steps)))].sum())))


def macro_p(steps: Sequence[ArrayLike], units: Sequence[float], seed: int = 0) -> float:
    """The same for the sum over independent sets of unit * sum of steps: from MACRO_DRAWS seeded draws of each set."""
    generator = np.random.default_rng(seed)
    drawn, found = np.zeros(MACRO_DRAWS), 0.0
    for own, unit in zip(steps, units, strict=True):
        chances, offset = sign_flips(own)
        drawn += unit * (generator.choice(len(chances), MACRO_DRAWS, p=chances) - offset)
        found += unit * float(np.sum(own))
    return float(1 + np.sum(np.abs(drawn) >= abs(found) - 1e-12)) / (1 + MACRO_DRAWS)


def _distances(parts: Sequence[Estimate]) -> tuple[list[float], list[float]]:
    """How far the lower limits lie below the values, and the upper ones above."""
    return [e.value - e.low for e in parts], [e.high - e.value for e in parts]
