"""`hero up` as a user starts it, on models and data small enough for a test, and a look at its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.until import until

POLL_S = 0.1
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}

CONFIG = """
[run]
name = "tiny"
steps = 4
folder = "{folder}/run"

[broker]
claim_after_ms = 2000
memory_mb = 128

[model]
policy = "{folder}/policy"

[data]
train = "{folder}/data.jsonl"
families = {{chain_sum = {{min_terms = 2, max_terms = 2}}}}
max_prompt_tokens = 96

[sampling]
completions = 4
max_tokens = 16

[actor]
groups_in_flight = 8
max_model_len = 192
kv_cache_gib = 0.1
own_cores = true
max_logprob_difference = 0.001

[verifier]
kind = "math"
deadline_s = 10

[reward_model]
model = "{folder}/reward-model"

[learner]
groups_per_step = 4
lr = 1e-3
checkpoint_every_steps = 3

[eval]
{eval}
"""


def prepare(folder: Path, evaluation: str = "") -> Path:
    """The config file of a run with a random policy, a random reward model and a data file of 20 lines, one bad.

    evaluation: the lines of [eval].
    """
    from tests import tiny_models

    tiny_models.policy(folder / "policy", max_tokens=192)
    tiny_models.reward_model(folder / "reward-model", max_tokens=192)
    rows = [json.dumps({"question": f"{i} + {i} = ?", "answer": str(2 * i)}) for i in range(19)]
    (folder / "data.jsonl").write_text("\n".join([*rows[:7], '{"question": "3 + ', *rows[7:]]) + "\n")
    file = folder / "tiny.toml"
    file.write_text(CONFIG.format(folder=folder, eval=evaluation))
    return file


class Hero:
    """One `hero up` process; what it prints goes to `output`."""

    def __init__(self, config: Path, *flags: str) -> None:
        self.output = config.parent / "output.txt"
        self.folder = config.parent / "run"
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("HERO_", "REDIS_URL"))}
        with self.output.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "up", str(config), *flags],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment | ENVIRONMENT,
            )

    def wait(self, seconds: float) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"hero up did not end within {seconds} s\n{self.told()}") from None

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """The first true value of `condition`."""
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert self.process.poll() is None, f"hero up ended before {what}\n{self.told()}"
            assert time.monotonic() < deadline, f"no {what} within {seconds} s\n{self.told()}"
            time.sleep(POLL_S)
        return value

    def steps(self) -> list[int]:
        """Steps in the metrics file, in the order in which they were written."""
        file = self.folder / "metrics.jsonl"
        lines = file.open() if file.is_file() else []
        return [json.loads(line)["step"] for line in lines if line.endswith("\n")]

    def told(self) -> str:
        """The last that anybody said."""
        logs = [self.output, *sorted((self.folder / "logs").glob("*.log"))]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    started: str
    """Clock ticks since boot: a number that is used again is another process."""
    command: str


def processes() -> list[Process]:
    """Every living process of this machine."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if fields[0] != "Z":
            found.append(Process(int(entry.name), int(fields[1]), fields[19], command))
    return found


def below(pid: int) -> list[Process]:
    """All children of a process, their children, and so on."""
    everything = processes()
    found, parents = [], {pid}
    while parents:
        level = [p for p in everything if p.parent in parents]
        found += level
        parents = {p.pid for p in level}
    return found


def all_gone(known: list[Process], seconds: float = 60.0) -> None:
    """Waits until they are: who was killed with its parent ends a moment after it."""
    until(lambda: not still_alive(known), f"end of {[p.command[:80] for p in still_alive(known)]}", seconds)


def still_alive(known: list[Process]) -> list[Process]:
    living = {(p.pid, p.started) for p in processes()}
    return [p for p in known if (p.pid, p.started) in living]
