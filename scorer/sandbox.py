"""Verification in killable child processes: a deadline, a memory cap and a fresh start for each child.

Why not pebble.ProcessPool: it gives a whole task one deadline, so a batch cannot say which answer was
guilty, and a single answer costs two messages and three threads; its spawned children import the parent's
main module; its manager polls every 0.1 s. Here the deadline runs per answer inside a batch, a failure
names its answer at once, and a new child is a fork of a server that has imported everything: milliseconds.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from common.errors import ChildFailed
from scorer.child_process import Task
from scorer.fork_server_process import ForkServer
from scorer.supervisor import Supervisor
from scorer.verifier import Kind, Verdict, answer_of

BATCH = 16
"""Answers per request: enough to hide the round trip, few enough to spread a group over the children."""
GOLD_MAX_CHARS = 4000


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
    is `error`. So neither a hiccup of the machine nor a neighbour is blamed on a completion. What computed
    all the deadline long, by its child's own CPU time, is `timeout` at once: no hiccup does that.
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
        self._closed = False
        self._server = ForkServer(verifier, memory_mb, unevaluated)
        self._mine = threading.local()
        self._supervisors: list[Supervisor] = []
        self._threads = ThreadPoolExecutor(children, thread_name_prefix="verify")
        # Started now, so that the first group does not wait for imports.
        for _ in range(children):
            self._threads.submit(lambda: self._supervisor().child())

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

    def close(self) -> None:
        """Kills the children, also in the middle of an answer; a `verify` that waits raises ChildFailed."""
        self._closed = True
        self._server.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for supervisor in self._supervisors:
            supervisor.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def child_pids(self) -> list[int]:
        """Process ids of the children that run now."""
        pids = [supervisor.pid for supervisor in self._supervisors]
        return [pid for pid in pids if pid is not None]

    def _supervisor(self) -> Supervisor:
        """That of the calling thread, one of ours: they live as long as the sandbox."""
        mine: Supervisor | None = getattr(self._mine, "supervisor", None)
        if mine is None:
            mine = self._mine.supervisor = Supervisor(self._server, self.deadline_s, self.tasks_per_child)
            self._supervisors.append(mine)
        return mine

    def _judge(self, batch: list[Task]) -> list[Verdict]:
        return self._supervisor().judge(batch)

    def _run(self, tasks: list[Task]) -> list[Verdict]:
        size = max(1, min(BATCH, math.ceil(len(tasks) / self.children)))
        batches = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        try:
            return [verdict for batch in self._threads.map(self._judge, batches) for verdict in batch]
        except (CancelledError, RuntimeError, ChildFailed) as error:
            if not self._closed:
                raise
            raise ChildFailed("the sandbox was closed before all answers were judged; make a new one") from error
