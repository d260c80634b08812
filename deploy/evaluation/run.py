"""An evaluation from sets and models to `OUT/eval.json` and `OUT/eval.png`: for `hero eval`, and for `hero up`.

OUT/settings.json             of the last command
OUT/sets/SET.jsonl            the problems
OUT/rows/MODEL/SET.jsonl      what a model made of them; what is there is not done again
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import config
from common.lifecycle import computing_environment, die_with_parent
from common.settings import Sections
from deploy.evaluation import report, rows, sets
from deploy.evaluation.figures import summary
from deploy.evaluation.sample import SETTINGS
from deploy.run_folder import write_atomically
from deploy.show import console

LOOK_EVERY_S = 0.25
FILE, PICTURE = "eval.json", "eval.png"


def evaluate(settings: Sections, out: Path, models: Mapping[str, Path], stop: threading.Event) -> int:
    """Evaluates the models on the prepared sets that they lack, one engine at a time: models that differ in nothing but
    their weights, as the exports of one run, take turns in one.

    Returns the exit code of the process that failed, 0 when all is there, or when `stop` was set: what is finished is
    kept.
    """
    wanted = rows.missing(settings, out, models, console)
    write_atomically(out / SETTINGS, config.dump(settings))
    for alike in _by_shape({name: models[name] for name, set_names in wanted.items() if set_names}):
        if stop.is_set():
            break
        asked = [part for name in alike for part in (name, str(models[name]), ",".join(wanted[name]))]
        command = [sys.executable, "-m", "deploy.evaluation.sample", str(out), *asked]
        environment = computing_environment(settings.actor.threads)
        process = subprocess.Popen(command, env=environment, preexec_fn=die_with_parent, start_new_session=True)
        while process.poll() is None:
            if stop.wait(LOOK_EVERY_S):
                process.kill()  # it has nothing to hand back but what it has written
                process.wait()
                return 0
        if process.returncode:
            return process.returncode
    return 0


def _by_shape(models: Mapping[str, Path]) -> list[list[str]]:
    """Names of models of one architecture and tokenizer together, in order."""
    found: dict[tuple[bytes, ...], list[str]] = {}
    for name, folder in models.items():
        files = (folder / "config.json", folder / "tokenizer.json", folder / "tokenizer_config.json")
        shape = tuple(file.read_bytes() if file.is_file() else str(folder).encode() for file in files)
        found.setdefault(shape, []).append(name)
    return list(found.values())


def conclude(out: Path, results: Sequence[rows.Result], k: Sequence[int]) -> dict[str, Any]:
    """Works out the figures, writes and draws them."""
    names = [name for name in dict.fromkeys(r.set for r in results) if sets.path(out, name).is_file()]
    found = {"sets": {name: sets.read(out, name).about for name in names}} | summary(results, k)
    write_atomically(out / FILE, json.dumps(found, indent=1))
    report.draw(found, out / PICTURE)
    return found
