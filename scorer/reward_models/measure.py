"""What a reward model is worth on labelled completions: AUROC with its interval, and calibration. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from common.auroc import auroc, auroc_within

Loss = Literal["logistic", "bradley_terry"]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
BINS = 10
RESAMPLES = 1000


@dataclass(frozen=True)
class Quality:
    """What `measure` found; nan (null in JSON) where a figure needs what the data has not."""

    completions: int
    prompts: int
    right: float
    """Share of the completions."""
    auroc: float
    """P(a correct completion scores above a wrong one), over all of them."""
    auroc_interval95: tuple[float, float]
    auroc_within: float
    """The mean over prompts with both labels: what HERO's ranks rest on."""
    auroc_within_interval95: tuple[float, float]
    calibration_error: float
    """Expected calibration error of `probability`, in BINS bins of as many each: the mean |said - true|."""
    bins: list[tuple[float, float, int]]
    """(mean probability, share that was true, count) of each bin."""

    def json(self) -> dict[str, Any]:
        return {name: _plain(value) for name, value in asdict(self).items()}


def measure(labels: Bools, scores: Floats, prompts: npt.NDArray[np.int64], loss: Loss, seed: int = 0) -> Quality:
    """labels: bool [N]. scores: float [N], finite. prompts: int [N]. Intervals: bootstrap over prompts.

    loss: what the scores mean. logistic: sigmoid(score) is the probability to be correct. bradley_terry:
    sigmoid(a - b) is the probability that a is the correct one of two completions of a prompt.
    """
    probability, truth = _probabilities(labels, scores, prompts, loss)
    bins = _bins(probability, truth)
    total = sum(count for _, _, count in bins)
    error = sum(abs(said - true) * count for said, true, count in bins) / total if total else math.nan
    each = {p: auroc(labels[prompts == p], scores[prompts == p]) for p in np.unique(prompts).tolist()}
    mixed = np.array([value for value in each.values() if not math.isnan(value)])
    return Quality(
        completions=len(labels),
        prompts=len(each),
        right=float(labels.mean()) if len(labels) else math.nan,
        auroc=auroc(labels, scores),
        auroc_interval95=_interval(prompts, lambda chosen: auroc(labels[chosen], scores[chosen]), seed),
        auroc_within=auroc_within(labels, scores, prompts),
        auroc_within_interval95=_interval(np.arange(len(mixed)), lambda chosen: float(mixed[chosen].mean()), seed),
        calibration_error=error,
        bins=bins,
    )


def _probabilities(labels: Bools, scores: Floats, prompts: npt.NDArray[np.int64], loss: Loss) -> tuple[Floats, Bools]:
    """(probability, whether it came true), as the loss that the model was trained with means it."""
    if loss == "logistic":
        return _sigmoid(scores), labels
    margins, truth = [], []
    for prompt in np.unique(prompts):
        own, right = scores[prompts == prompt], labels[prompts == prompt]
        # Each pair in both orders: which of the two is named first means nothing.
        first, second = np.nonzero(right[:, None] != right[None, :])
        margins.append(own[first] - own[second])
        truth.append(right[first])
    return _sigmoid(np.concatenate([*margins, np.empty(0)])), np.concatenate([*truth, np.empty(0, dtype=bool)])


def _bins(probability: Floats, truth: Bools) -> list[tuple[float, float, int]]:
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, BINS) if len(part)]
    return [(float(probability[part].mean()), float(truth[part].mean()), len(part)) for part in parts]


def _interval(
    clusters: npt.NDArray[np.int64], figure: Callable[[npt.NDArray[np.int64]], float], seed: int
) -> tuple[float, float]:
    """The middle 95 % of `figure` over resampled clusters (prompts: their completions are not independent)."""
    _, place = np.unique(clusters, return_inverse=True)
    members = [np.flatnonzero(place == number) for number in range(place.max() + 1 if len(place) else 0)]
    dice = np.random.default_rng(seed)
    found = []
    for _ in range(RESAMPLES if len(members) > 1 else 0):
        chosen = dice.integers(len(members), size=len(members))
        found.append(figure(np.concatenate([members[number] for number in chosen])))
    known = [value for value in found if not math.isnan(value)]
    return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if known else (math.nan, math.nan)


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 0.5 * (1 + np.tanh(x / 2))  # exp() would overflow
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
