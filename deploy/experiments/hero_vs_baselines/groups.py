"""What a run's reward log says once the truth is known: how training went, and what each kind of group taught. Pure.

A group is one record of the reward log (`learner.reward_log.record`) with the truth of each completion, by the task's
own scorer. The gate's verdicts make its kind: all_wrong, mixed, all_right. In the two uniform kinds a verifier alone
gives no advantage.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.auroc import auroc

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
KINDS = ("all_wrong", "mixed", "all_right")


@dataclass(frozen=True)
class Group:
    """One trained group; every array is [N]."""

    step: int
    truth: Bools
    accepted: Bools
    advantage: Floats
    score: Floats | None
    """Of the reward model, nan where it gave none; None in a run without one."""
    tokens: Floats
    weight: float

    @property
    def kind(self) -> str:
        return "all_right" if self.accepted.all() else "mixed" if self.accepted.any() else "all_wrong"


def group(record: Mapping[str, Any], truth: Sequence[bool]) -> Group:
    """Of one line of the reward log that was trained on."""
    made = record["completions"]
    scores = [one["rm_score"] for one in made]
    return Group(
        step=record["step"],
        truth=np.array(truth, bool),
        accepted=np.array([one["status"] == "correct" for one in made]),
        advantage=np.array([one["advantage"] for one in made], float),
        score=None if all(s is None for s in scores) else np.array([np.nan if s is None else s for s in scores], float),
        tokens=np.array([one["tokens"] for one in made], float),
        weight=float(record["weight"]),
    )


def series(groups: Iterable[Group], every: int) -> list[dict[str, float | int | None]]:
    """Means over every so many steps, the first line of steps 1 to `every`; None where nothing can be averaged.

    accuracy: share of completions that are right. accepted: by the gate. gate_recall: of the right ones.
    rm_score: mean score. rm_auroc: P(a right one of a group scores above a wrong one). all_wrong, all_right: share of
    groups, by the gate. untaught: share of groups without any advantage. tokens, weight: means.
    """
    parts: dict[int, list[Group]] = defaultdict(list)
    for one in groups:
        parts[(one.step - 1) // every].append(one)
    return [{"step": (part + 1) * every} | _line(parts[part]) for part in sorted(parts)]


def _line(groups: Sequence[Group]) -> dict[str, float | None]:
    truth, accepted = (np.concatenate([getattr(g, name) for g in groups]) for name in ("truth", "accepted"))
    scores = [g.score for g in groups if g.score is not None]
    kinds = [g.kind for g in groups]
    return {
        "accuracy": float(truth.mean()),
        "accepted": float(accepted.mean()),
        "gate_recall": float(accepted[truth].mean()) if truth.any() else None,
        "rm_score": float(np.nanmean(np.concatenate(scores))) if scores else None,
        "rm_auroc": _mean(auroc(g.truth, g.score) for g in groups if g.score is not None),
        "all_wrong": kinds.count("all_wrong") / len(groups),
        "all_right": kinds.count("all_right") / len(groups),
        "untaught": float(np.mean([not np.abs(g.advantage).max() > 0 for g in groups])),
        "tokens": float(np.concatenate([g.tokens for g in groups]).mean()),
        "weight": float(np.mean([g.weight for g in groups])),
    }


def lessons(groups: Sequence[Group]) -> dict[str, dict[str, float | int | None]]:
    """For each kind of group, over a whole run:

    groups: share of all. teachable: share of them with right and wrong completions in truth. pull: their share of the
    sum of |advantage|. agreement: P(a right completion of a group has a higher advantage than a wrong one), ties half,
    over their teachable groups. margin: the mean advantage of right completions less that of wrong ones, there.
    """
    total = sum(float(np.abs(g.advantage).sum()) for g in groups)
    return {kind: _lesson([g for g in groups if g.kind == kind], len(groups), total) for kind in KINDS}


def _lesson(groups: Sequence[Group], of_groups: int, of_pull: float) -> dict[str, float | int | None]:
    taught = [g for g in groups if 0 < g.truth.sum() < len(g.truth)]
    pull = sum(float(np.abs(g.advantage).sum()) for g in groups)
    return {
        "groups": len(groups) / of_groups,
        "teachable": len(taught) / len(groups) if groups else None,
        "pull": pull / of_pull if of_pull else 0.0,
        "agreement": _mean(auroc(g.truth, g.advantage) for g in taught),
        "margin": _mean(float(g.advantage[g.truth].mean() - g.advantage[~g.truth].mean()) for g in taught),
    }


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else None
