"""Is it HERO that helps? `python -m deploy.compare FOLDER`.

FOLDER is one that deploy/quickstart.sh has filled: policy, reward-model and hero. From the same cold start, with the
settings of that run, two more arms are run and evaluated on the same problems: the verifier's 0/1 as the only reward,
and more cold start for the seconds that the reward model and HERO took, its learning rate falling to zero. Ends with
a table and compare.json; what is there already is not run again.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import config
from common.errors import HeroError
from deploy.evaluation import report, rows
from deploy.evaluation.figures import summary
from deploy.run_folder import write_atomically
from deploy.show import console

ENDLESS = 1_000_000  # epochs; the seconds end it


def compare(folder: Path) -> dict[str, Any]:
    """Held-out figures of the arms, as `deploy.evaluation.figures.summary`: before, hero, verifier, more_cold_start."""
    hero = folder / "hero"
    settings = hero / "settings.json"
    seconds = json.loads((hero / "summary.json").read_text())["seconds"]
    verifier, longer = folder / "verifier", folder / "more-cold-start"
    if not (verifier / "summary.json").is_file():
        _run("up", settings, f"--run.folder={verifier}", "--reward.mode=verifier")
    if not (longer / "sft.json").is_file():
        _run(
            "sft",
            settings,
            f"--sft.base={folder / 'policy'}",
            f"--sft.out={longer}",
            f"--sft.epochs={ENDLESS}",
            f"--sft.max_seconds={seconds['reward_model'] + seconds['training']}",
            "--sft.final_lr_fraction=0",
        )
    if not (longer / "eval" / "eval.json").is_file():
        _run("eval", f"after={longer}", "--config", settings, "--out", longer / "eval")
    places = {
        "before": (hero, "before"),
        "hero": (hero, "after"),
        "verifier": (verifier, "after"),
        "more_cold_start": (longer, "after"),
    }
    results = [
        dataclasses.replace(result, model=arm)
        for arm, (run, moment) in places.items()
        for result in rows.read_all(run / "eval")
        if result.model == moment
    ]
    return summary(results, k=())


def _run(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "deploy.cli", *map(str, arguments)], check=True)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    folder = Path(arguments[0])
    if not (folder / "hero" / "summary.json").is_file():
        print(f"{folder} holds no finished run: bash deploy/quickstart.sh {folder}", file=sys.stderr)
        return 5
    try:
        found = compare(folder)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    except HeroError as error:
        return config.fail(error)
    write_atomically(folder / "compare.json", json.dumps(found, indent=1))
    console.print(report.accuracies(found))
    console.print(report.comparisons(found["comparisons"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
