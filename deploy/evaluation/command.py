"""`hero eval`: what was asked for, evaluated or read again, as tables and a picture."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import config
from common.errors import ConfigError
from common.lifecycle import stop_on_signals
from common.settings import Sections
from deploy.evaluation import models, report, rows, run, sets
from deploy.show import console


def command(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Returns the exit code: 130 when it was stopped before the end."""
    if arguments.source is not None:
        return _again(arguments, flags)
    if not arguments.models:
        raise ConfigError(
            "which model? give a folder, a hub name or the folder of a run; or --from for the tables again"
        )
    settings = _settings(arguments, flags)
    out = arguments.out
    found = models.named(arguments.models)
    models.refuse_short_context(found, settings.actor.max_model_len)
    sets.prepare(settings, out, console)
    stop = stop_on_signals()
    if code := run.evaluate(settings, out, found, stop):
        console.print(f"what is finished is kept in {out}; the same command goes on there", highlight=False)
        return code
    if stop.is_set():
        console.print(f"stopped; what is finished is kept in {out}, the same command goes on there", highlight=False)
        return 130
    _show(run.conclude(out, rows.present(out, found, settings.eval.sets), settings.eval.k), out)
    return 0


def _settings(arguments: argparse.Namespace, flags: Sequence[str]) -> Sections:
    """Of --config, else of the first run among the models."""
    file = arguments.config or models.run_settings(arguments.models)
    if file is not None and arguments.config is None:
        console.print(f"settings of {file}", highlight=False, soft_wrap=True)
    # A list, for a map would be joined with the file's sets instead of taking their place.
    data = [f"--eval.data={json.dumps(arguments.data)}"] if arguments.data else []
    settings = config.load(file, [*flags, *data])
    if not settings.eval.sets:
        raise ConfigError("on what? give --data with one or several held-out sets, or set eval.data in --config")
    return settings


def _again(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Tables and picture from what is there."""
    if arguments.models or arguments.data or any(not re.match(r"--eval\.k\b", flag) for flag in flags):
        raise ConfigError(
            "--from works the figures out again: it takes no model, no --data and no setting but --eval.k"
        )
    results = rows.read_all(arguments.source)
    k = config.load(None, [*flags, f"--eval.samples={min(r.asked.samples for r in results)}"]).eval.k
    _show(run.conclude(arguments.source, results, k), arguments.source)
    return 0


def _show(found: Mapping[str, Any], out: Path) -> None:
    console.print(report.accuracies(found))
    if found["comparisons"]:
        console.print(report.comparisons(found["comparisons"]))
    console.print(
        f"figures: {out / run.FILE}   picture: {out / run.PICTURE}   every answer: {out / 'rows'}",
        highlight=False,
        soft_wrap=True,
    )
