"""Evaluation beside training in processes of their own, each of which is killed while a round runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.lanes import Stage
from common.server import LocalServer
from common.streams import Broker
from tests.chaos import job
from tests.chaos.audit import Observer
from tests.chaos.cluster import Cluster
from tests.until import until

SECONDS = 180.0


@pytest.fixture
def cluster(server: LocalServer, broker: Broker, tmp_path: Path) -> Iterator[Cluster]:
    settings = job.prepare(tmp_path, tmp_path / "run", real=False)
    made = Cluster(settings, server.url, broker.run, tmp_path / "logs", actors=1, scorers=1, real=False)
    yield made
    made.close()


def rounds(folder: Path) -> list[dict[str, Any]]:
    file = folder / "run" / "eval.jsonl"
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""  # the last line may be being written
    return [json.loads(line) for line in whole.splitlines()]


@pytest.mark.timeout(600)
def test_every_problem_is_in_its_round_once_whoever_is_killed(cluster: Cluster, broker: Broker, tmp_path: Path) -> None:
    observer = Observer(broker.url, broker.run)
    observer.start()
    # Given a round, when each of those who work on it is killed with something of it in hand
    held: dict[str, Stage] = {"actor-0": "eval:tickets", "scorer-0": "eval:rollouts", "learner": "eval:scored"}
    for name, stage in held.items():
        done = len(rounds(tmp_path))
        until(lambda stage=stage: broker.backlog()[stage]["pending"], f"{name} with {stage}", SECONDS)
        cluster.signal(name, signal.SIGKILL)
        cluster.workers[name].process.wait()
        cluster.mend()
        # Then rounds come to their end
        until(lambda done=done: len(rounds(tmp_path)) > done, f"round without {name}", SECONDS)
    names = ["scorer-0", "actor-0", "learner"]
    assert cluster.drain(names[:2], 120) + cluster.drain(names[2:], 120) == [(name, 0) for name in names]
    observer.end()
    # And each has every problem once, by its line, the books and the streams
    settings = tmp_path / "soak.toml"
    found = job.outcome(tmp_path / "run", settings, broker, observer, replay=False)
    assert found.findings.clean, found.findings
    lines = rounds(tmp_path)
    assert len(lines) >= 3 and lines[0]["step"] == 0
    assert all(line["eval"]["problems"] == job.HELD_OUT and not line["eval"]["given_up"] for line in lines)
    assert {json.dumps(line["abandoned"]) for line in lines} == {"{}"}
