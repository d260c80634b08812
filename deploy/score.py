"""`hero score`: rewards for a file of groups, or for those that a run recorded."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import IO, Any

from rich.console import Console

from common import config
from common.errors import ConfigError
from common.settings import Sections
from deploy.recorded import groups, recomputed
from deploy.show import console

Run = Callable[[Any], int]


def score(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Writes the rows to arguments.out or standard output, or shows one of them; returns the exit code."""
    from scorer.score_file import whole_or_nothing

    if (arguments.file is None) == (arguments.from_run is None):
        raise ConfigError("give a file of groups, or --from-run with the folder of a run")
    settings = _settings(arguments, flags)
    run = _from_file(arguments, settings) if arguments.from_run is None else _from_run(arguments, settings)
    if arguments.explain is not None:
        return _explained(arguments.explain, run, settings)
    if arguments.out is None:
        return run(sys.stdout)
    with whole_or_nothing(arguments.out) as file:
        return run(file)


def _settings(arguments: argparse.Namespace, flags: list[str]) -> Sections:
    """Of --config; without it those of the run, where there is one."""
    own = arguments.from_run / "settings.json" if arguments.from_run is not None else None
    return config.load(arguments.config or (own if own and own.is_file() else None), flags)


def _from_file(arguments: argparse.Namespace, settings: Sections) -> Run:
    from scorer.reward_models.backends import make_reward_model
    from scorer.score_file import score_file
    from scorer.worker import make_sandbox

    def run(out: Any) -> int:
        model = make_reward_model(settings)
        with make_sandbox(settings) as sandbox:
            summary = score_file(arguments.file, out, options=settings.reward, sandbox=sandbox, reward_model=model)
        _tell(summary.rows, summary.statuses)
        for line, reason in list(summary.errors.items())[:10]:
            console.print(f"  line {line} was not scored: {reason}", highlight=False, markup=False)
        if len(summary.errors) > 10:
            console.print(f"  and {len(summary.errors) - 10} more", highlight=False)
        return summary.exit_code

    return run


def _from_run(arguments: argparse.Namespace, settings: Sections) -> Run:
    def run(out: IO[str]) -> int:
        rows, statuses = 0, Counter[str]()
        for group in groups(arguments.from_run):
            row = recomputed(group, settings.reward)
            out.write(json.dumps(row) + "\n")
            rows += 1
            statuses.update(row["statuses"])
        _tell(rows, statuses)
        return 0

    return run


def _tell(rows: int, statuses: Counter[str]) -> None:
    told = ", ".join(f"{name} {count}" for name, count in statuses.most_common())
    console.print(f"{rows} rows: {told or 'no completion scored'}", highlight=False)


class _OneRow:
    """Keeps one row of what is written; a row is one call."""

    def __init__(self, number: int) -> None:
        self._number, self._written = number, 0
        self.kept: str | None = None

    def write(self, line: str) -> None:
        self._written += 1
        if self._written == self._number:
            self.kept = line

    def flush(self) -> None: ...


def _explained(number: int, run: Run, settings: Sections) -> int:
    """Scores all rows, since sigma_bar runs over them, and shows one."""
    from deploy.explain import explain

    out = _OneRow(number)
    code = run(out)
    if out.kept is None:
        raise ConfigError(f"--explain {number}: there is no such row; rows count from 1")
    row = json.loads(out.kept)
    if "error" in row:
        raise ConfigError(f"--explain {number}: that row was not scored: {row['error']}")
    Console().print(explain(row, settings.reward, settings.learner))
    return code
