"""`hero score`: rewards for a file of groups, without a run."""

from __future__ import annotations

import argparse
import sys

from common import config
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

        if arguments.out is None:
            return run(sys.stdout)
        with whole_or_nothing(arguments.out) as file:
            return run(file)
