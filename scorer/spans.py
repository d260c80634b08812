"""What the traces of tickets tell of a scorer: how long a batch took to verify, to be judged, to be published."""

from __future__ import annotations

import time
from collections.abc import Sequence

from common.deliveries import Delivery
from common.schema import Scored
from common.tracing import Tracer, epoch_ns


class ScoreSpans:
    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def scored(
        self,
        taken: Sequence[Delivery],
        groups: Sequence[Scored],
        published: Sequence[bool],
        marks: tuple[float, float, float],
    ) -> None:
        """A batch, just handed over. `marks`, of the monotonic clock: when it was begun, verified, and judged."""
        began, verified, judged = map(epoch_ns, marks)
        now = time.time_ns()
        for delivery, group, accepted in zip(taken, groups, published, strict=True):
            if (trace := self._tracer.of(group.ticket)) is None:
                continue
            told = {"batch": len(groups), "deliveries": delivery.deliveries, "correct": group.statuses.count("correct")}
            fault = "" if accepted else "not published: the ticket has moved on"
            score = trace.span("score", began, now, told | {"weight": group.weight}, fault=fault)
            trace.span("verify", began, verified, {}, under=score)
            if group.rm_scores is not None:
                trace.span("reward model", verified, judged, {}, under=score)

    @property
    def untold(self) -> int:
        """Spans that could not be told."""
        return self._tracer.untold

    def close(self) -> None:
        self._tracer.close()
