"""Progress bars that also speak on a pipe: a line now and then where a bar would be seen by nobody."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 10.0


class Bars(Progress):
    """Bars with count, further columns, time spent and time left, on standard error."""

    def __init__(self, *more: ProgressColumn, console: Console | None = None, disable: bool = False) -> None:
        super().__init__(
            TextColumn("{task.description:<22}"),
            BarColumn(30),
            MofNCompleteColumn(),
            *more,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(stderr=True),
            disable=disable,
        )
        self._said = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        super().update(task_id, **changes)
        task = self._tasks[task_id]
        if self.console.is_terminal or self.disable or task.finished or time.monotonic() < self._said + LINE_EVERY_S:
            return
        self._said = time.monotonic()
        self.console.print(self.make_tasks_table([task]))
