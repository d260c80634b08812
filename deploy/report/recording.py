"""A run as its folder has it: what it was told to do, what its logs say, what came out. No broker is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import RunFolderError
from common.untrusted import figure, printable
from deploy.monitor.overview import seconds
from deploy.recorded import LOG, parts
from deploy.report.kept import Kept
from deploy.report.lines import Lines
from deploy.report.steps import Steps
from deploy.scaling import RECORD

METRICS, ROUNDS = "metrics.jsonl", "eval.jsonl"
LARGEST_FILE_BYTES = 16 * 2**20
"""Of the files that are read as a whole; ours have kilobytes."""


class Recording:
    """A run that may still go on: `look` reads what is new."""

    def __init__(self, folder: Path) -> None:
        """Raises RunFolderError for a folder that is none of a run."""
        if not is_run(folder):
            raise RunFolderError(_no_run(folder))
        self.folder = folder
        self.name = printable(folder.resolve().name)
        """For people; `deploy.report.command` makes the names of several runs differ."""
        self.steps, self.rounds, self.scaling, self.groups = Steps(), Steps(), Steps(), Kept()
        self._logs = {
            METRICS: Lines(folder / METRICS),
            ROUNDS: Lines(folder / ROUNDS),
            RECORD: Lines(folder / RECORD),
            LOG: Lines(folder / LOG),
        }
        self._files: dict[str, Mapping[str, Any]] = {}
        self._unreadable: dict[str, str] = {}

    @property
    def unread_bytes(self) -> int:
        return sum(lines.unread_bytes for lines in self._logs.values())

    def look(self, told: Callable[[int], None] = lambda count: None) -> None:
        """`told` hears the bytes that were read."""
        self._files = {name: self._json(name) for name in ("run.json", "settings.json", "summary.json")}
        self._files["evaluation"] = self._json("eval/eval.json")
        for line in self._logs[METRICS].new(told):
            self.steps.add(line)
        for line in self._logs[ROUNDS].new(told):
            if isinstance(found := line.get("eval"), Mapping):
                self.rounds.add(found, found.get("step"))
        for line in self._logs[RECORD].new(told):
            self.scaling.add(line, line.get("time"))
        for line in self._logs[LOG].new(told):
            self.groups.add(line)

    def close(self) -> None:
        for lines in self._logs.values():
            lines.close()

    @property
    def id(self) -> str:
        return printable(str(self._files["run.json"].get("id") or self.name))

    @property
    def settings(self) -> Mapping[str, Any]:
        """`section.key` to value: the resolved ones, else those that identify the run; empty without either."""
        if whole := self._files["settings.json"]:
            return {
                f"{section}.{key}": value
                for section, keys in whole.items()
                if isinstance(keys, Mapping)
                for key, value in keys.items()
            }
        identity = self._files["run.json"].get("identity")
        return identity if isinstance(identity, Mapping) else {}

    @property
    def summary(self) -> Mapping[str, Any]:
        """summary.json; empty before the end."""
        return self._files["summary.json"]

    @property
    def evaluation(self) -> Mapping[str, Any]:
        """eval/eval.json; empty without."""
        return self._files["evaluation"]

    @property
    def step(self) -> int:
        return int(self.steps.steps[-1]) if len(self.steps) else 0

    @property
    def wanted_steps(self) -> int | None:
        found = figure(self.settings.get("run.steps"))
        return None if found is None else int(found)

    @property
    def finished(self) -> bool:
        """By its summary, which `hero up` writes last; for a learner that was started by hand, by its steps."""
        if done := figure(self.summary.get("steps")):
            return self.wanted_steps is None or done >= self.wanted_steps
        by_hand = not self._files["settings.json"]
        return by_hand and self.wanted_steps is not None and self.step >= self.wanted_steps

    @property
    def state(self) -> str:
        """For people: how far it is."""
        of = f" of {self.wanted_steps}" if self.wanted_steps else ""
        if self.finished:
            return f"finished: {self.step}{of} steps"
        last = self.steps.last("time")
        if last is None:
            return "no step yet"
        return f"not finished: step {self.step}{of}, the last one {seconds(max(time.time() - last, 0.0))} ago"

    def faults(self) -> list[str]:
        """What of the folder could not be read, and what was done again: a line each."""
        found = [f"{name} {why}" for name, why in self._unreadable.items()]
        for name, lines in self._logs.items():
            if lines.bad_count:
                more = f", and {lines.bad_count - len(lines.bad)} more" if lines.bad_count > len(lines.bad) else ""
                found.append(f"{lines.bad_count} damaged lines of {name} were left out: {'; '.join(lines.bad)}{more}")
            if lines.half_bytes:
                found.append(f"the last line of {name} is not whole yet ({lines.half_bytes:,} bytes)")
        if self.groups.malformed:
            found.append(f"{self.groups.malformed} objects in {LOG} are no groups and were left out")
        if self.steps.again:
            found.append(f"{self.steps.again} steps were done again after a restart: their last lines count")
        if self.steps.left_out:
            found.append(f"{METRICS} has more names than the page shows")
        return found

    def _json(self, name: str) -> Mapping[str, Any]:
        """An object in a file; empty where there is none, or none that can be read."""
        file = self.folder / name
        self._unreadable.pop(name, None)
        try:
            if file.stat().st_size > LARGEST_FILE_BYTES:
                raise ValueError(f"it has more than {LARGEST_FILE_BYTES >> 20} MiB")
            found = json.loads(file.read_bytes())
            if not isinstance(found, Mapping):
                raise ValueError("it is no object")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            self._unreadable[name] = f"could not be read: {printable(str(error)[:120])}"
            return {}
        return found


def is_run(folder: Path) -> bool:
    """Whether it holds a run, or what a shadow or a learner left of one."""
    return any((folder / name).is_file() for name in ("run.json", METRICS)) or bool(parts(folder / LOG))


def runs_below(folder: Path, depth: int = 3) -> list[Path]:
    """The folders of runs in a folder and below, the one that wrote last first."""
    if is_run(folder):
        return [folder]
    found: list[Path] = []
    if depth and folder.is_dir():
        found = [run for inner in sorted(folder.iterdir()) if inner.is_dir() for run in runs_below(inner, depth - 1)]
    return sorted(found, key=_written, reverse=True)


def _written(run: Path) -> float:
    return max((file.stat().st_mtime for name in (METRICS, "run.json") if (file := run / name).is_file()), default=0.0)


def _no_run(folder: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}: give the folder of a run, which `hero up` prints first"
    below = [str(run) for run in runs_below(folder)]
    remedy = f"; below it there are {', '.join(below[:5])}" if below else ": give the one that `hero up` prints first"
    return f"{folder} holds no run (neither run.json nor {METRICS} nor {LOG}){remedy}"
