"""What the gate can judge: its recall and false-positive rate against the tasks' own scorers, on a policy's samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.progress import Bars
from common.settings import Sections
from common.tasks import Problem
from deploy.evaluation.rows import right
from deploy.judging import judged, sandbox_of
from deploy.show import console


@dataclass(frozen=True)
class Verdict:
    """On one sample."""

    problem: int
    task: str
    text: str
    right: bool
    """By the task's own scorer."""
    accepted: bool
    """By the gate."""


Verdicts = list[Verdict]


def judged_by_the_gate(settings: Sections, problems: Sequence[Problem], results: Sequence[dict[str, Any]]) -> Verdicts:
    """Of an evaluation's samples, which the task's scorer has judged, what verifier.kind says."""
    asked = [(place, sample) for place, row in enumerate(results) for sample in row["samples"]]
    with sandbox_of(settings, settings.verifier.kind) as sandbox, Bars(console=console) as bars:
        said = judged(
            sandbox, [problems[place] for place, _ in asked], [one["text"] for _, one in asked], bars, "the gate"
        )
    return [
        Verdict(place, problems[place].meta["task"], one["text"], right(one), verdict.correct)
        for (place, one), verdict in zip(asked, said, strict=True)
    ]


def measured(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """{"samples", "right", "recall", "false_positive_rate", "precision", "families": {...}}: None of nothing."""
    families = sorted({v.task for v in verdicts})
    return _rates(verdicts) | {"families": {f: _rates([v for v in verdicts if v.task == f]) for f in families}}


def _rates(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    of_right = [v.accepted for v in verdicts if v.right]
    of_wrong = [v.accepted for v in verdicts if not v.right]
    of_accepted = [v.right for v in verdicts if v.accepted]
    return {
        "samples": len(verdicts),
        "right": _share([v.right for v in verdicts]),
        "recall": _share(of_right),
        "false_positive_rate": _share(of_wrong),
        "precision": _share(of_accepted),
    }


def _share(of: Sequence[bool]) -> float | None:
    return sum(of) / len(of) if of else None
