"""`python -m tests.chaos.no_shared_folder`: the quickstart's job on four hosts that share nothing but a broker.

Network namespaces for the broker, for the learner with its scorer, and for two actors, which see neither the learner's
folders nor its shared memory and are given the broker's address alone: settings, model, tokenizer and weights come
out of it, the weights by what each step changed. Afterwards `hero eval` compares the policy with that of the same job
on one machine, whose actors read a folder. Needs root, and what `bash deploy/quickstart.sh` has made. The last line
of standard output is JSON; exit code 1 when a process failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from common.lifecycle import computing_environment, die_with_parent
from common.progress import Bars
from learner.json_lines import lines_by_step
from tests.chaos.cluster import ROOT
from tests.chaos.host_cluster import BROKER_PORT, HostedServer
from tests.chaos.hosts import Host, Network

CONFIG = ROOT / "deploy" / "configs" / "quickstart.toml"
RUN_ID = "apart"
LOOK_S = 0.5
LEAVE_S = 60.0


class Hosted:
    """A `hero` process on a host; `hidden` are folders that it finds empty, and /dev/shm is its own."""

    def __init__(self, host: Host, log: Path, *command: str, hidden: Sequence[Path] = ()) -> None:
        self.name, self._log = log.stem, log
        hide = [f"mount -t tmpfs none {folder}" for folder in ("/dev/shm", *hidden)] if hidden else []
        script = " && ".join([*hide, 'exec "$@"'])
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*host.inside, "sh", "-c", script, "sh", sys.executable, "-m", "deploy.cli", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=computing_environment(1) | {"PYTHONPATH": str(ROOT)},
                preexec_fn=die_with_parent,
            )

    def check(self) -> None:
        if self.process.poll() not in (None, 0):
            words = self._log.read_text()[-2000:]
            raise SystemExit(f"{self.name} ended with exit code {self.process.returncode}:\n{words}")


def run(root: Path, out: Path) -> dict[str, Any]:
    """Trains to the end; what came of it."""
    paths = ["--model.policy", str(root / "policy"), "--reward_model.model", str(root / "reward-model")]
    out.mkdir(parents=True)
    started = time.monotonic()
    with ExitStack() as stack, Bars() as bars:
        network = stack.enter_context(Network())
        broker, learner, *others = (network.add(name) for name in ("broker", "learner", "actor-0", "actor-1"))
        server = HostedServer(broker, out / "b")
        stack.callback(server.kill)
        at = ["--broker.url", f"redis://{broker.address}:{BROKER_PORT}"]
        own = [str(CONFIG), *paths, *at, "--run.id", RUN_ID, "--run.folder", str(out / "run")]
        hosted = [Hosted(learner, out / f"{role}.log", role, *own) for role in ("learner", "scorer")]
        for number, host in enumerate(others):
            hosted.append(Hosted(host, out / f"actor-{number}.log", "actor", *at, hidden=(root,)))
        for process in hosted:
            stack.callback(process.process.kill)
        steps = bars.add_task("steps", total=_steps())
        while hosted[0].process.poll() is None:
            time.sleep(LOOK_S)
            bars.update(steps, completed=len(lines_by_step(out / "run" / "metrics.jsonl")))
            for process in hosted:
                process.check()
        for process in hosted:
            process.process.wait(LEAVE_S)
            process.check()
    lines = lines_by_step(out / "run" / "metrics.jsonl")
    carried = [line["carried_mb"] for line in lines if "carried_mb" in line]
    return {
        "steps": len(lines),
        "seconds": round(time.monotonic() - started),
        "carried_mb": {"first": carried[0], "mean": round(sum(carried[1:]) / max(1, len(carried) - 1), 3)},
        "staleness": round(sum(line["staleness_mean"] for line in lines) / len(lines), 3),
        "actors": {process.name: _said(out / f"{process.name}.log") for process in hosted[2:]},
    }


def _steps() -> int:
    from common import config

    return config.load(CONFIG).run.steps


def _said(log: Path) -> list[str]:
    """What an actor told."""
    return [json.loads(line)["event"] for line in log.read_text().splitlines() if line.startswith("{")]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.no_shared_folder",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quickstart", type=Path, default=Path("runs/quickstart"), help="folder of the quickstart")
    parser.add_argument("--out", type=Path, default=Path("runs/apart"), help="a new folder")
    given = parser.parse_args(arguments)
    root, out = given.quickstart.resolve(), given.out.resolve()
    if not (root / "hero" / "export").is_dir():
        parser.error(f"{root} holds no finished quickstart: run bash deploy/quickstart.sh {given.quickstart} first")
    if out.exists():
        parser.error(f"{out} is there already: name a new folder with --out")
    found = run(root, out)
    models = [f"before={root / 'policy'}", f"folder={root / 'hero'}", f"broker={out / 'run' / 'export'}"]
    command = [sys.executable, "-m", "deploy.cli", "eval", *models, "--config", str(CONFIG), "--out", str(out / "eval")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    sets = {
        name: model["sets"] for name, model in json.loads((out / "eval" / "eval.json").read_text())["models"].items()
    }
    print(
        json.dumps(found | {"accuracy": {name: [one["accuracy"] for one in of.values()] for name, of in sets.items()}})
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
