"""One child under supervision: batches judged in it, a new one when it failed, a second try for what failed."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal

from common.errors import ChildFailed
from scorer.child_process import ChildProcess, Task
from scorer.fork_server_process import ForkServer
from scorer.verifier import EXTRACTED_CHARS, Verdict

START_ATTEMPTS = 3
COMPUTING = 0.8
"""Share of the deadline from which on it was the answer that computed, and not the machine that was busy."""

Failure = Literal["timeout", "error"]


@dataclass(frozen=True)
class _Attempt:
    verdicts: list[Verdict]
    """Up to the first failure; a few tasks before the one that failed may lack theirs."""
    failed: int | None
    """The place of the task that failed; None: all well."""
    how: Failure
    sure: bool
    """It was the task's own fault: nothing else can have kept its child computing."""


class Supervisor:
    """Judges batches for one thread, which must live until the server is closed."""

    def __init__(self, server: ForkServer, deadline_s: float, tasks_per_child: int) -> None:
        self._server = server
        self._deadline_s = deadline_s
        self._tasks_per_child = tasks_per_child
        self._child: ChildProcess | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child that runs now."""
        child = self._child
        return None if child is None else child.pid

    def judge(self, batch: list[Task]) -> list[Verdict]:
        """A whole batch, then what failed in it, each alone."""
        verdicts: dict[int, Verdict] = {}
        again: list[int] = []
        waiting = list(range(len(batch)))
        while waiting:
            attempt = self._attempt([batch[place] for place in waiting])
            verdicts |= zip(waiting, attempt.verdicts, strict=False)
            if attempt.failed is not None:
                place = waiting.pop(attempt.failed)
                if attempt.sure:
                    verdicts[place] = self._blame(batch[place], attempt)
                else:
                    again.append(place)
            waiting = waiting[len(attempt.verdicts) :]
        for place in again:
            attempt = self._attempt([batch[place]])
            verdicts[place] = attempt.verdicts[0] if attempt.verdicts else self._blame(batch[place], attempt)
        return [verdicts[place] for place in range(len(batch))]

    def child(self) -> ChildProcess:
        """The child, forked when there is none. Raises ChildFailed when that does not work."""
        reason = ""
        for _ in range(START_ATTEMPTS):
            if self._child is not None:
                return self._child
            try:
                self._child = ChildProcess(self._server)
                self._child.wait_until_ready()
                return self._child
            except (OSError, ValueError) as error:
                reason = str(error) or type(error).__name__
                self.discard()
        raise ChildFailed(
            f"no verification child could be started in {START_ATTEMPTS} attempts: {reason}; see that memory is "
            f"free and that `{sys.executable} -c 'import math_verify'` works"
        )

    def discard(self) -> None:
        """Ends the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _attempt(self, tasks: list[Task]) -> _Attempt:
        """The tasks in one child, which is gone after a failure."""
        child = self.child()
        verdicts: list[Verdict] = []
        how: Failure = "error"
        try:
            child.send(tasks, self._deadline_s)
            while len(verdicts) < len(tasks):
                verdicts.append(child.receive(self._deadline_s))
        except TimeoutError:
            how = "timeout"
        except (OSError, ValueError):
            pass
        failed, sure = None, False
        if len(verdicts) < len(tasks):
            begun = child.begun() - (child.tasks - len(tasks))
            failed = min(max(begun - 1, len(verdicts)), len(tasks) - 1)
            sure = how == "timeout" and child.computed() >= COMPUTING * self._deadline_s
        if failed is not None or child.tasks >= self._tasks_per_child:
            self.discard()
        return _Attempt(verdicts, failed, how, sure)

    def _blame(self, task: Task, attempt: _Attempt) -> Verdict:
        """The verdict of what failed by its own fault, or twice, the second time alone."""
        text = None if task[1] is None else task[1][:EXTRACTED_CHARS]
        return Verdict(attempt.how, text, self._deadline_s * 1e3 if attempt.how == "timeout" else 0.0)
