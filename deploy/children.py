"""The processes of a run on this machine: started, watched, restarted, drained; none outlives us."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import structlog

from common.errors import ChildFailed, MemoryFull
from deploy.processes import Processes

MAX_RESTARTS = 5  # of one child within RESTART_WINDOW_S: more is no accident
RESTART_WINDOW_S = 300.0
DRAIN_S = 40.0
KILLED = (0, -signal.SIGKILL, -signal.SIGTERM)  # by somebody, or for want of memory
LAST_LINES = 15
LOG_BYTES = 64 * 2**20

log = structlog.get_logger("up")


@dataclass
class Child:
    name: str
    command: list[str]
    threads: int
    cores: set[int] | None
    logs: list[Path]
    """One for each rank."""
    processes: Processes
    restarts: list[float] = field(default_factory=list)


class Children:
    """Every child's exact command is in `logs/NAME.cmd`, its output in `logs/NAME.log`, older output in `.log.1`. The
    broker's address is in its environment alone (REDIS_URL), where no list of processes shows it.

    Ranks 1, 2, ... of the learner write to `learner-rank1.log` and so on.
    """

    module = "deploy.cli"
    """What they are started by."""

    def __init__(self, logs: Path, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        """`environment`: what they have beside ours."""
        self._logs, self._environment = logs, environment
        logs.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, Child] = {}
        self._retired: list[tuple[Child, float]] = []
        """Who was asked to leave, and when it has to have left."""

    def start(
        self, name: str, arguments: list[str], threads: int, cores: set[int] | None = None, ranks: int = 1
    ) -> None:
        """Starts `hero ARGUMENTS` under a name, on these cores or on ours; so many ranks of it as one child."""
        command = [sys.executable, "-m", self.module, *arguments]
        (self._logs / f"{name}.cmd").write_text(shlex.join(command) + "\n")
        logs = [self._logs / (f"{name}-rank{rank}.log" if rank else f"{name}.log") for rank in range(ranks)]
        processes = Processes(command, threads, cores, logs, self._environment)
        self._children[name] = Child(name, command, threads, cores, logs, processes)

    def learner_ended(self) -> bool:
        """Whether it is done, or has met an error that another start would meet too; no signal ended it."""
        return _ended(self._children["learner"])

    def restart_dead(self, over: Callable[[], bool]) -> None:
        """Starts again who died; those that left because the run is `over` stay away, and a learner that ended.

        Raises ChildFailed with the end of its log when one cannot be kept alive. Being killed is no fault of its own.
        """
        now = time.monotonic()
        self._end_retired()
        for child in self._children.values():
            code = child.processes.poll()
            if code is None or (child.name == "learner" and _ended(child)) or (code == 0 and over()):
                continue
            if code not in KILLED:
                child.restarts = [t for t in child.restarts if now - t < RESTART_WINDOW_S] + [now]
            if len(child.restarts) > MAX_RESTARTS:
                raise ChildFailed(
                    f"{child.name} died {MAX_RESTARTS + 1} times, last with exit code {code}:\n"
                    f"{self.last_words(child.name)}"
                )
            log.warning("restarted", child=child.name, exit_code=code, log=str(child.logs[child.processes.blame()]))
            child.processes = Processes(child.command, child.threads, child.cores, child.logs, self._environment)

    def retire(self, name: str) -> None:
        """Asks a child to drain, and does not start it again."""
        child = self._children.pop(name)
        child.processes.ask(signal.SIGTERM)
        self._retired.append((child, time.monotonic() + DRAIN_S))

    def _end_retired(self) -> None:
        for child, deadline in self._retired:
            if child.processes.poll() is None and time.monotonic() > deadline:
                log.warning("did not drain in time, killed", child=child.name, seconds=DRAIN_S)
                child.processes.kill()
        self._retired = [(child, deadline) for child, deadline in self._retired if child.processes.poll() is None]

    def bound_logs(self) -> None:
        """Moves a log that has grown large to `.log.1`; the child goes on in the emptied file, for it appends."""
        for file in (file for child in self._children.values() for file in child.logs):
            if file.stat().st_size > LOG_BYTES:
                older = file.with_suffix(".log.1")
                try:
                    shutil.copyfile(file, older)
                except OSError as error:  # a full disk gets room, then
                    log.warning("dropped a log that cannot be kept", log=str(file), why=str(error))
                    older.unlink(missing_ok=True)
                os.truncate(file, 0)

    def exit_code(self, name: str) -> int | None:
        return self._children[name].processes.poll()

    def last_words(self, name: str) -> str:
        """End of the log of a child that has ended; of several ranks that of the one which ended all."""
        child = self._children[name]
        lines = child.logs[child.processes.blame()].read_text(errors="replace").splitlines()
        return "\n".join("  " + line[:400] for line in lines[-LAST_LINES:])

    def pids(self) -> dict[str, int]:
        return {name: child.processes.pid for name, child in self._children.items()}

    def stop(self, names: list[str] | None = None) -> None:
        """SIGTERM, a deadline to drain, SIGKILL."""
        chosen = [c for name, c in self._children.items() if names is None or name in names]
        for child in chosen:
            child.processes.ask(signal.SIGTERM)
        chosen += [child for child, _ in self._retired] if names is None else []
        deadline = time.monotonic() + DRAIN_S
        for child in chosen:
            try:
                child.processes.wait(deadline)
            except subprocess.TimeoutExpired:
                log.warning("did not drain in time, killed", child=child.name, seconds=DRAIN_S)
                child.processes.kill()


def _ended(learner: Child) -> bool:
    code = learner.processes.poll()
    return code is not None and code >= 0 and code != MemoryFull.exit_code  # which starts again with smaller batches
