"""Is it HERO that helps? `python -m deploy.compare FOLDER`.

FOLDER is one that deploy/quickstart.sh has filled: policy, reward-model and hero. From the same cold start, with the
settings of that run, two more arms are run and evaluated on the same problems: the verifier's 0/1 as the only reward,
and more cold start for the seconds that the reward model and HERO took, its learning rate falling to zero. Ends with
a table and compare.json; what is there already is not run again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from deploy.run_folder import write_atomically
from deploy.show import console

ENDLESS = 1_000_000  # epochs; the seconds end it


def compare(folder: Path) -> dict[str, dict[str, Any]]:
    """Held-out results by arm: before, hero, verifier, more_cold_start; each as of `deploy.evaluate`."""
    hero = folder / "hero"
    config = hero / "settings.json"
    seconds = json.loads((hero / "summary.json").read_text())["seconds"]
    verifier, longer = folder / "verifier", folder / "more-cold-start"
    if not (verifier / "summary.json").is_file():
        _run("deploy.cli", "up", config, f"--run.folder={verifier}", "--reward.mode=verifier")
    if not (longer / "sft.json").is_file():
        _run(
            "deploy.cli",
            "sft",
            config,
            f"--sft.base={folder / 'policy'}",
            f"--sft.out={longer}",
            f"--sft.epochs={ENDLESS}",
            f"--sft.max_seconds={seconds['reward_model'] + seconds['training']}",
            "--sft.final_lr_fraction=0",
        )
    if not (longer / "eval.json").is_file():
        _run("deploy.evaluate", config, longer, longer / "eval.json")
    files = {
        "before": hero / "eval_before.json",
        "hero": hero / "eval_after.json",
        "verifier": verifier / "eval_after.json",
        "more_cold_start": longer / "eval.json",
    }
    return {arm: json.loads(file.read_text()) for arm, file in files.items()}


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True)


def table(results: dict[str, dict[str, Any]]) -> Table:
    """One line per arm; 95 % intervals of a proportion."""
    made = Table(title="held-out accuracy", title_justify="left")
    for column in ("arm", "greedy", "sampled"):
        made.add_column(column)
    for arm, result in results.items():
        cells = [f"{100 * result[k]:.1f} ± {100 * result['interval95'][k]:.1f}" for k in ("greedy", "sampled")]
        made.add_row(arm.replace("_", " "), *cells)
    return made


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    folder = Path(arguments[0])
    if not (folder / "hero" / "summary.json").is_file():
        print(f"{folder} holds no finished run: bash deploy/quickstart.sh {folder}", file=sys.stderr)
        return 5
    try:
        results = compare(folder)
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    write_atomically(folder / "compare.json", json.dumps(results, indent=1))
    console.print(table(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
