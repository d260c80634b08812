"""Actors of another host: real vLLM, nothing there but the broker's address."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.address import client_of
from common.server import LocalServer
from tests.e2e.running import ENVIRONMENT, Hero, prepare

STEPS = 96
"""More than an actor samples before it hears that it is to leave, however late that is."""


def join(folder: Path, url: str, *flags: str) -> subprocess.Popen[bytes]:
    """`hero actor` from an empty folder; it sees no folder of the learner's, and keeps what it fetches in its own."""
    folder.mkdir()
    own = ["--actor.weights_from", "broker", "--weights.cache", str(folder / "fetched")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HERO_", "REDIS_URL"))}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "actor", "--broker.url", url, *own, *flags],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=environment | ENVIRONMENT,
        )


@pytest.mark.timeout(900)
def test_an_actor_joins_with_nothing_but_the_brokers_address(tmp_path: Path) -> None:
    # Given a run without any actor, which is a legal state, on a broker that outlives it
    with LocalServer(tmp_path / "b", 256) as server:
        flags = ["--actor.count", "0", "--run.steps", str(STEPS), "--broker.url", server.url]
        hero = Hero(prepare(tmp_path), *flags)
        actors: list[subprocess.Popen[bytes]] = []
        try:
            # When one comes from a host that has neither model nor settings, leaves in the middle, and another comes
            actors.append(join(tmp_path / "first", server.url))
            hero.until(lambda: len(hero.steps()) >= 2, 300, "second step")
            actors[0].send_signal(signal.SIGTERM)
            assert actors[0].wait(60) == 0
            assert len(hero.steps()) < STEPS
            actors.append(join(tmp_path / "second", server.url))
            # Then the run ends, every policy was checked against the learner's, and the actor leaves with it
            assert hero.wait(300) == 0, hero.told()
            assert actors[1].wait(60) == 0
            # (an actor that has not yet heard of the end may say once more that it wants some)
            assert client_of(server.url).keys("*:weights:[^w]*") == [], "no weights stay when the run is over"
        finally:
            hero.end()
            for actor in actors:
                actor.kill()
                actor.wait()
    said = [
        json.loads(line)["event"] for line in (tmp_path / "first" / "log").read_text().splitlines() if line[0] == "{"
    ]
    assert "the model comes from the broker" in said and "engine ready" in said
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["steps"] == STEPS and summary["max_logprob_difference"] < 1e-3
    # And what was fetched stays on a host until the run is over: its next actor goes on from there
    left = sorted(path.name for path in (tmp_path / "first" / "fetched").iterdir() if path.name[0] != ".")
    assert 1 <= len(left) <= 2 and all(name.startswith("v") for name in left), left
    assert not (tmp_path / "second" / "fetched").exists()
