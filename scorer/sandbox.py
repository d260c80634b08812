"""Verification in killable child processes: a deadline, a memory cap and a fresh start for each child.

Why not pebble.ProcessPool: it gives a whole task one deadline, so a batch cannot say which answer was
guilty, and a single answer costs two messages and three threads; its spawned children import the parent's
main module; its manager polls every 0.1 s. Here the deadline runs per answer inside a batch, and a failure
names its answer at once.

Each child belongs to one thread that lives as long as the sandbox: the kernel sends a parent-death signal
when the *thread* that started a child ends.
"""

from __future__ import annotations

import json
import math
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from common.errors import ChildFailed
from scorer.child_process import ChildProcess, Task
from scorer.verifier import EXTRACTED_CHARS, Kind, Verdict, answer_of

START_ATTEMPTS = 3
BATCH = 16
"""Answers per request: enough to hide the round trip, few enough to spread a group over the children."""
GOLD_MAX_CHARS = 4000

Failure = Literal["timeout", "error"]


@dataclass(frozen=True)
class Item:
    """`Item(gold="42", completion="6 * 7 = \\\\boxed{42}", meta={})`: one completion to verify."""

    gold: str
    completion: str
    meta: Mapping[str, str] = field(default_factory=dict)
    """What verifier `task` needs: a Problem's meta of `common.tasks`."""


class Sandbox:
    """A fixed number of children that verify; usable from several threads at once.

    children: processes, and answers judged at a time. deadline_s: wall seconds per answer.
    memory_mb: MiB of address space that a child may take beyond what it starts with. max_chars: longest
    answer that is judged. tasks_per_child: answers after which a child is replaced. unevaluated: accept 2+2 for 4.

    What fails is tried again alone, in a fresh child: twice too slow is `timeout`, twice fatal to its child
    is `error`. So neither a hiccup of the machine nor a neighbour is blamed on a completion.
    """

    def __init__(
        self,
        children: int,
        deadline_s: float,
        memory_mb: int,
        max_chars: int,
        tasks_per_child: int,
        verifier: Kind = "math",
        unevaluated: bool = False,
    ) -> None:
        if children < 1 or deadline_s <= 0 or memory_mb < 1 or max_chars < 1 or tasks_per_child < 1:
            raise ValueError(
                f"{children=}, {deadline_s=}, {memory_mb=}, {max_chars=}, {tasks_per_child=}: all must be above 0"
            )
        self.children = children
        self.deadline_s = deadline_s
        self.max_chars = max_chars
        self.tasks_per_child = tasks_per_child
        self.verifier = verifier
        self._memory_mb = memory_mb
        self._unevaluated = unevaluated
        self._closed = False
        self._lock = threading.Lock()
        self._running: set[ChildProcess] = set()
        self._mine = threading.local()
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="verify")
        # Started now and side by side, so that the first group does not wait for imports.
        for _ in range(children):
            self._threads.submit(self._child)

    def verify(self, items: Sequence[Item]) -> list[Verdict]:
        """One verdict per item, in order; equal answers to the same question are judged once.

        Raises ChildFailed when no child can be started.
        """
        answers = [answer_of(self.verifier, item.completion, self.max_chars) for item in items]
        tasks: list[Task | None] = [
            None if answer is None else (item.gold, answer.text, answer.kind, item.meta)
            for item, answer in zip(items, answers, strict=True)
        ]
        keys = [None if task is None else json.dumps(task, sort_keys=True, default=dict) for task in tasks]
        unique = {key: task for key, task in zip(keys, tasks, strict=True) if key is not None and task is not None}
        verdicts = dict(zip(unique, self._run(list(unique.values())), strict=True))
        return [Verdict("no_answer", None, 0.0) if key is None else verdicts[key] for key in keys]

    def check_golds(self, golds: Sequence[str]) -> list[str | None]:
        """Per gold answer the reason why no answer can be compared with it, or None. Cannot hang."""
        reasons: list[str | None] = [
            f"the gold answer has {len(gold)} characters, the limit is {GOLD_MAX_CHARS}"
            if len(gold) > GOLD_MAX_CHARS
            else None
            for gold in golds
        ]
        short = [place for place, reason in enumerate(reasons) if reason is None]
        for place, verdict in zip(short, self._run([(golds[p], None, None, {}) for p in short]), strict=True):
            if verdict.status == "timeout":
                reasons[place] = f"reading the gold answer takes more than {self.deadline_s:g} s"
            elif verdict.status == "error":
                reasons[place] = "reading the gold answer ends the process that reads it"
            elif verdict.status != "correct":
                reasons[place] = verdict.extracted
        return reasons

    def check_gold(self, gold: str) -> str | None:
        """`check_golds` of one."""
        return self.check_golds([gold])[0]

    def close(self) -> None:
        """Kills the children, also in the middle of an answer; a `verify` that waits raises ChildFailed."""
        with self._lock:
            self._closed = True
            running = list(self._running)
        for child in running:
            child.process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for child in running:
            self._discard(child)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def child_pids(self) -> list[int]:
        """Process ids of the children that run now."""
        with self._lock:
            return [child.process.pid for child in self._running]

    def _run(self, tasks: list[Task]) -> list[Verdict]:
        size = max(1, min(BATCH, math.ceil(len(tasks) / self.children)))
        batches = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        try:
            return [verdict for batch in self._threads.map(self._judge, batches) for verdict in batch]
        except (CancelledError, RuntimeError) as error:
            if not self._closed:
                raise
            raise ChildFailed("the sandbox was closed before all answers were judged; make a new one") from error

    def _judge(self, batch: list[Task]) -> list[Verdict]:
        """A whole batch, then what failed in it, each alone; runs in a thread that owns one child."""
        verdicts: dict[int, Verdict] = {}
        failed: list[int] = []
        waiting = list(range(len(batch)))
        while waiting:
            replies, guilty, _ = self._replies([batch[place] for place in waiting])
            verdicts |= zip(waiting, replies, strict=False)
            if guilty is not None:
                failed.append(waiting.pop(guilty))
            waiting = waiting[len(replies) :]
        for place in failed:
            replies, _, failure = self._replies([batch[place]])
            text = batch[place][1]
            verdicts[place] = replies[0] if replies else _blame(failure, text, self.deadline_s)
        return [verdicts[place] for place in range(len(batch))]

    def _replies(self, tasks: list[Task]) -> tuple[list[Verdict], int | None, Failure]:
        """Verdicts up to the first failure, the place of the task that failed (None: all well), and how.

        A few tasks before the one that failed may lack their verdict; the child is gone after a failure.
        """
        child = self._child()
        replies: list[Verdict] = []
        failure: Failure = "error"
        try:
            child.send(tasks)
            while len(replies) < len(tasks):
                replies.append(child.receive(self.deadline_s))
        except TimeoutError:
            failure = "timeout"
        except (OSError, ValueError):
            pass
        guilty = None
        if len(replies) < len(tasks):
            begun = child.begun() - (child.tasks - len(tasks))
            guilty = min(max(begun - 1, len(replies)), len(tasks) - 1)
        if guilty is not None or child.tasks >= self.tasks_per_child:
            self._discard(child)
        return replies, guilty, failure

    def _child(self) -> ChildProcess:
        """This thread's child, started when there is none. Raises ChildFailed when that does not work."""
        mine: ChildProcess | None = getattr(self._mine, "child", None)
        reason = ""
        for _ in range(START_ATTEMPTS):
            if mine is not None:
                return mine
            with self._lock:  # so that close() sees every child that was ever started
                if self._closed:
                    raise RuntimeError("closed")
                starting = ChildProcess(self.verifier, self._memory_mb, self._unevaluated)
                self._running.add(starting)
            try:
                starting.wait_until_ready()
                mine = self._mine.child = starting
            except (OSError, ValueError) as error:
                reason = str(error) or type(error).__name__
                self._discard(starting)
        if mine is not None:
            return mine
        raise ChildFailed(
            f"no verification child could be started in {START_ATTEMPTS} attempts: {reason}; see that memory is "
            f"free and that `{sys.executable} -c 'import math_verify'` works"
        )

    def _discard(self, child: ChildProcess) -> None:
        child.end()
        self._mine.child = None
        with self._lock:
            self._running.discard(child)


def _blame(failure: Failure, text: str | None, deadline_s: float) -> Verdict:
    """The verdict of what failed twice, the second time alone."""
    shown = None if text is None else text[:EXTRACTED_CHARS]
    return Verdict(failure, shown, deadline_s * 1e3 if failure == "timeout" else 0.0)
