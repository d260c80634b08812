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
    """Evaluates the models on the prepared sets that they lack, one engine at a time.

    Returns the exit code of the process that failed, 0 when all is there, or when `stop` was set: what is finished is
    kept.
    """
    wanted = rows.missing(settings, out, models, console)
    write_atomically(out / SETTINGS, config.dump(settings))
    for name, set_names in wanted.items():
        if not set_names or stop.is_set():
            continue
        command = [sys.executable, "-m", "deploy.evaluation.sample", str(out), name, str(models[name]), *set_names]
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


def conclude(out: Path, results: Sequence[rows.Result], k: Sequence[int]) -> dict[str, Any]:
    """Works out the figures, writes and draws them."""
    names = [name for name in dict.fromkeys(r.set for r in results) if sets.path(out, name).is_file()]
    found = {"sets": {name: sets.read(out, name).about for name in names}} | summary(results, k)
    write_atomically(out / FILE, json.dumps(found, indent=1))
    report.draw(found, out / PICTURE)
    return found
