"""Memory and CPU time of all that a process has started, sampled each second from /proc (Linux)."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One look: resident bytes and CPU-seconds since its start, by process id."""

    time: float
    """Unix time, as in metrics.jsonl."""
    resident: dict[int, int]
    cpu: dict[int, float]
    name: dict[int, str]
    machine: float
    """Core-seconds since boot in which the machine's cores were not idle, stolen ones included."""


class Watch:
    """`with Watch(os.getpid()) as watch: ...` looks each second at the descendants of a process, not at itself.

    Pages that processes share count in each of them.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(5)

    def _look(self) -> None:
        while not self._done.wait(EVERY_S):
            self.samples.append(_sample(self._root))

    def peak(self) -> tuple[int, dict[str, int]]:
        """(bytes, MiB by name) at the moment when all processes together held most."""
        highest = max(self.samples, key=lambda sample: sum(sample.resident.values()))
        by_name: dict[str, int] = {}
        for pid, resident in highest.resident.items():
            by_name[highest.name[pid]] = by_name.get(highest.name[pid], 0) + resident // 2**20
        return sum(highest.resident.values()), by_name

    def cpu_seconds(self, start: float, end: float) -> dict[str, float]:
        """CPU-seconds per second of wall clock between two Unix times, by name; {} when nobody looked in between."""
        inside = [sample for sample in self.samples if start <= sample.time <= end]
        if len(inside) < 2:
            return {}
        first, last = inside[0], inside[-1]
        by_name: dict[str, float] = {}
        for pid, cpu in last.cpu.items():
            by_name[last.name[pid]] = by_name.get(last.name[pid], 0.0) + cpu - first.cpu.get(pid, 0.0)
        return {name: seconds / (last.time - first.time) for name, seconds in by_name.items()}

    def taken_by_others(self, start: float, end: float) -> float:
        """Cores that were busy between two Unix times with what is none of ours, on average; nan as above."""
        inside = [sample for sample in self.samples if start <= sample.time <= end]
        if len(inside) < 2:
            return float("nan")
        busy = (inside[-1].machine - inside[0].machine) / (inside[-1].time - inside[0].time)
        return busy - sum(self.cpu_seconds(start, end).values())


def cpu_seconds_below(root: int) -> float:
    """CPU-seconds of all living descendants of a process since their start, in ticks of 10 ms."""
    return sum(_sample(root).cpu.values())


def _sample(root: int) -> Sample:
    parents: dict[int, int] = {}
    figures: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(") ")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(folder.name)
        parents[pid] = int(fields[1])
        figures[pid] = int(fields[21]) * _PAGE, (int(fields[11]) + int(fields[12])) / _TICK
    family: set[int] = set()
    while more := {pid for pid, parent in parents.items() if parent in family | {root}} - family:
        family |= more
    return Sample(
        time.time(),
        {pid: figures[pid][0] for pid in family},
        {pid: figures[pid][1] for pid in family},
        {pid: _name(pid) for pid in family},
        _machine(),
    )


def _machine() -> float:
    user, nice, system, _idle, _iowait, irq, softirq, steal = Path("/proc/stat").read_text().split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICK


def _name(pid: int) -> str:
    """What a process is: the `hero` command, the module, or the program."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        words = [""]
    if "-m" in words[:-1]:
        place = words.index("-m") + 1
        return words[place + 1] if words[place] == "deploy.cli" else words[place]
    return Path(words[0]).name or "?"
