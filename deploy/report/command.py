"""`hero report`: finds the runs, reads them, writes the page; and once more every few seconds if asked."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError, RunFolderError
from common.lifecycle import stop_on_signals
from common.progress import Bars
from common.untrusted import printable
from deploy.evaluation.models import short_names
from deploy.report.drawing import MOST_CURVES
from deploy.report.page import page
from deploy.report.recording import Recording, runs_below
from deploy.run_folder import write_atomically
from deploy.show import console

RUNS = Path("runs")
PAGE = "report.html"
BAR_FROM_BYTES = 8 * 2**20
"""Less is read before anybody wonders."""


def run(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Returns the exit code. Raises RunFolderError, ConfigError."""
    if flags:
        raise ConfigError(f"{flags[0]}: there is no such flag; see hero report --help")
    if arguments.every < 1:
        raise ConfigError(f"--every {arguments.every:g}: give 1 second or more")
    runs = recordings(arguments.runs or [_newest()])
    out = arguments.out or (runs[0].folder / PAGE if len(runs) == 1 else Path(PAGE))
    try:
        finished = _write(runs, out, arguments.every if arguments.follow else 0.0)
        console.print(f"page: {out}", highlight=False, soft_wrap=True)
        if arguments.follow and not finished:
            _follow(runs, out, arguments.every)
    finally:
        for one in runs:
            one.close()
    return 0


def recordings(folders: Sequence[Path]) -> list[Recording]:
    """Of several folders, each with a name of its own. Raises RunFolderError, ConfigError."""
    if len(folders) > MOST_CURVES:
        raise ConfigError(f"{len(folders)} runs are more than a plot can tell apart: give at most {MOST_CURVES}")
    resolved = [folder.expanduser().resolve() for folder in folders]
    if twice := next((folder for folder in resolved if resolved.count(folder) > 1), None):
        raise ConfigError(f"{twice} is given twice: give each run once")
    runs = [Recording(folder.expanduser()) for folder in folders]
    names = short_names(resolved)
    for place, (one, name) in enumerate(zip(runs, names, strict=True)):
        one.name = printable(name) if names.count(name) == 1 else printable(f"{name} ({place + 1})")
    return runs


def _newest() -> Path:
    found = runs_below(RUNS)
    if not found:
        raise RunFolderError(f"which run? there is none below {RUNS.resolve()}: give the folders of runs")
    more = f", the newest of {len(found)} below {RUNS}" if len(found) > 1 else ""
    console.print(f"run {found[0]}{more}", highlight=False, soft_wrap=True)
    return found[0]


def _write(runs: Sequence[Recording], out: Path, refresh_s: float) -> bool:
    """Reads what is new and writes the page; returns whether every run is finished, and then nothing reloads."""
    unread = sum(one.unread_bytes for one in runs)
    with Bars(console=console, disable=unread < BAR_FROM_BYTES) as bars:
        task = bars.add_task("reading, MiB", total=unread >> 20)
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            bars.update(task, completed=min(done, unread) >> 20)

        for one in runs:
            one.look(told)
    finished = all(one.finished for one in runs)
    try:
        write_atomically(out, page(runs, 0.0 if finished else refresh_s))
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written: {error}; give another file by --out") from error
    return finished


def _follow(runs: Sequence[Recording], out: Path, every_s: float) -> None:
    """Until all runs are finished, or a signal; the last page does not reload itself."""
    stop = stop_on_signals()
    console.print(f"written anew every {every_s:g} s until the run is finished; Ctrl-C ends it", highlight=False)
    while not stop.wait(every_s):
        if _write(runs, out, every_s):
            console.print("finished")
            return
    _write(runs, out, 0.0)
