"""All stages of a run, each in a process of its own, one after the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from common import config
from common.settings import Sections
from tests.bench.simulate.inputs import Times
from tests.bench.stages import Group

ROOT = Path(__file__).resolve().parents[3]
STAGES = ("sampling", "scoring", "training", "books")
DEADLINE_S = 600


def measure(settings: Sections, groups: list[Group]) -> Times:
    found: dict[str, float] = {}
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        log, dumped = Path(folder) / "groups.jsonl", Path(folder) / "settings.json"
        log.write_text("".join(json.dumps(group) + "\n" for group in groups), encoding="utf-8")
        dumped.write_text(config.dump(settings), encoding="utf-8")
        for stage in STAGES:
            command = [sys.executable, "-m", "tests.bench.stage_times", "--stage", stage, str(dumped), str(log)]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT, timeout=DEADLINE_S
            )
            found |= json.loads(done.stdout.splitlines()[-1])
            print(f"{stage}: {done.stdout.splitlines()[-1]}", file=sys.stderr)
    return Times(**{field.name: found[field.name] for field in fields(Times)})
