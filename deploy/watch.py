"""What `hero up` shows while a run trains: a bar that follows the learner's logs, the broker and the workers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn

from common.errors import BrokerUnavailable
from common.lifecycle import Every
from common.settings import Sections
from common.streams import Broker
from deploy.show import console, evaluation_line, step_line

LINES_EVERY_STEPS = 10


class Tail:
    """The lines that come to a file of JSON objects from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = file.stat().st_size if file.exists() else 0

    def new(self) -> Iterator[dict[str, Any]]:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                yield json.loads(line)


class Watch:
    """Follows metrics and evaluations of the learner, the broker and the workers, and shows them."""

    def __init__(self, settings: Sections, broker: Broker) -> None:
        self._total = settings.run.steps
        self._broker = broker
        self._metrics, self._evaluations = (Tail(settings.run.folder / f"{n}.jsonl") for n in ("metrics", "eval"))
        self._lines: list[dict[str, Any]] = []
        self._differences: dict[str, float] = {}
        self._heartbeats = Every(2.0)
        self._started = time.monotonic()
        self._text = "learner, actors and scorers are starting"
        self.bar = Progress(TextColumn("{task.description}"), BarColumn(20), console=console)
        self._task = self.bar.add_task(self._text, total=self._total)

    def look(self) -> None:
        if self._heartbeats.due():
            self._remember_differences()
        for line in self._evaluations.new():
            self.bar.console.print(evaluation_line(line["eval"]), highlight=False, soft_wrap=True)
        new = list(self._metrics.new())
        if not new:
            if not self._lines:
                self.bar.update(self._task, description=f"{self._text} ({time.monotonic() - self._started:.0f} s)")
            return
        self._lines += new
        recent = self._lines[-20:]
        span = max(recent[-1]["time"] - recent[0]["time"], 1e-9)
        rate = sum(line["sampled_tokens"] for line in recent[1:]) / span
        left = (self._total - recent[-1]["step"]) * span / max(1, len(recent) - 1)
        text = step_line(recent[-1], self._total, self._safe_backlog(), rate, left)
        self.bar.update(self._task, description=text, completed=recent[-1]["step"])
        if len(self._lines) == len(new) or any(line["step"] % LINES_EVERY_STEPS == 0 for line in new):
            self.bar.console.print(text, highlight=False, soft_wrap=True)

    def worst_difference(self) -> float:
        """Largest difference that any actor found between its engine and the learner."""
        self._remember_differences()  # also of actors that have just left
        return max(self._differences.values(), default=float("nan"))

    def _safe_backlog(self) -> dict[Any, Any]:
        try:
            return dict(self._broker.backlog())
        except BrokerUnavailable:
            return {}

    def _remember_differences(self) -> None:
        try:
            states = self._broker.processes()
        except BrokerUnavailable:
            return
        for name, state in states.items():
            if state["role"] == "actor" and isinstance(found := state.get("max_logprob_difference"), int | float):
                self._differences[name] = found
