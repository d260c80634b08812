"""`hero score`: rewards for a file of groups, without a run."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from rich.console import Console

from common import config
from common.errors import ConfigError
from common.settings import Sections
from deploy.show import console


def score(arguments: argparse.Namespace, flags: list[str]) -> int:
    """Scores arguments.file into arguments.out or standard output; returns the exit code."""
    from scorer.score_file import score_file, whole_or_nothing
    from scorer.worker import make_reward_model, make_sandbox

    settings = config.load(arguments.config, flags)
    model = make_reward_model(settings)
    with make_sandbox(settings) as sandbox:

        def run(out: object) -> int:
            summary = score_file(arguments.file, out, options=settings.reward, sandbox=sandbox, reward_model=model)  # type: ignore[arg-type]
            told = ", ".join(f"{name} {count}" for name, count in summary.statuses.most_common())
            console.print(f"{summary.rows} rows: {told or 'no completion scored'}", highlight=False)
            for line, reason in list(summary.errors.items())[:10]:
                console.print(f"  line {line} was not scored: {reason}", highlight=False, markup=False)
            if len(summary.errors) > 10:
                console.print(f"  and {len(summary.errors) - 10} more", highlight=False)
            return summary.exit_code

        if arguments.explain is not None:
            return _explained(arguments.explain, run, settings)
        if arguments.out is None:
            return run(sys.stdout)
        with whole_or_nothing(arguments.out) as file:
            return run(file)


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


def _explained(number: int, run: Callable[[object], int], settings: Sections) -> int:
    """Scores the whole file, since sigma_bar runs over it, and shows one row."""
    from deploy.explain import explain

    out = _OneRow(number)
    code = run(out)
    if out.kept is None:
        raise ConfigError(f"--explain {number}: there is no such row; rows count from 1")
    row = json.loads(out.kept)
    if "error" in row:
        raise ConfigError(f"--explain {number}: that row was not scored: {row['error']}")
    Console().print(explain(row, settings.reward, settings.learner.advantage))
    return code
