"""What is drawn of a step or of an evaluation: numbers by name, as TensorBoard and W&B group them. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from learner.round import Figure


@dataclass(frozen=True)
class Points:
    """All of one step.

    Points(step=12, time=1.7e9, scalars={"train/reward_mean": 0.31, "tickets/trained": 96, ...}, ratios=[0, 3, ...35])
    """

    step: int
    time: float
    """Seconds of the epoch."""
    scalars: dict[str, float]
    ratios: list[int] | None = None
    """Tokens by pi / mu, in the bins of `learner.ratio_bins`."""
    evaluates: bool = False
    """Whether they are of an evaluation, which ends later than the step that it began at."""


def of_step(line: Mapping[str, Any]) -> Points:
    """Of a line of metrics.jsonl; what is no number there is left out."""
    scalars: dict[str, float] = {}
    for name, value in line.items():
        if name not in ("step", "time"):
            scalars |= _numbers(name if isinstance(value, Mapping) else f"train/{name}", value)
    return Points(line["step"], line["time"], scalars, line.get("ratio_histogram"))


def of_evaluation(figure: Figure, time: float) -> Points:
    """At the step that its round began at."""
    found = dict(_numbers("eval", dataclasses.asdict(figure)))
    return Points(found.pop("eval/step"), time, found, evaluates=True)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(f"{name}/{key}", inner)
    elif isinstance(value, int | float):
        yield name, value
