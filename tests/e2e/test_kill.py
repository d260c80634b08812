"""A run whose processes are killed, stopped and orphaned comes to its end with balanced books."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.cores import current, divide
from tests.e2e.running import Hero, Process, all_gone, below, prepare, still_alive

pytestmark = pytest.mark.timeout(900)  # about a minute on two quiet cores

FOREVER = ("--run.steps", "1000000")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Hero]]:
    """Starts `hero up` in one and the same run folder; nothing outlives the test."""
    config = prepare(tmp_path)
    started: list[Hero] = []

    def start(*flags: str) -> Hero:
        started.append(Hero(config, *flags))
        return started[-1]

    yield start
    for hero in started:
        hero.end()


def workers(hero: Hero, role: str) -> list[Process]:
    return [p for p in below(hero.process.pid) if p.command.partition("deploy.cli ")[2].startswith(f"{role} ")]


def steps_after(hero: Hero, count: int, more: int) -> Callable[[], bool]:
    return lambda: len(hero.steps()) >= count + more


def test_killed_stopped_orphaned_and_finished(start: Callable[..., Hero]) -> None:
    # Given a run that trains
    hero = start(*FOREVER)
    hero.until(steps_after(hero, 0, 2), 300, "second step")

    # When its actor and a scorer are killed, both are started again and training goes on
    victims = [workers(hero, "actor")[0], workers(hero, "scorer")[0]]
    for victim in victims:
        os.kill(victim.pid, signal.SIGKILL)
    all_gone(victims)
    hero.until(lambda: len(workers(hero, "actor")) == 1 and len(workers(hero, "scorer")) == 2, 60, "restart")
    hero.until(steps_after(hero, len(hero.steps()), 8), 300, "step after the restart")
    if apart := divide(sorted(current()), actors=1, actor_threads=1, learner_threads=1):
        for process in below(hero.process.pid):
            own = "deploy.cli actor" in process.command
            try:
                cores = os.sched_getaffinity(process.pid)
            except ProcessLookupError:  # a verifier's child that was replaced meanwhile
                continue
            assert cores == (apart.actors[0] if own else apart.others), process

    # When the learner and the server are killed, these are too
    for name in ("deploy.cli learner", "server unixsocket:"):
        [victim] = [p for p in below(hero.process.pid) if name in p.command]
        os.kill(victim.pid, signal.SIGKILL)
        all_gone([victim])
        hero.until(lambda name=name: any(name in p.command for p in below(hero.process.pid)), 60, "restart")  # type: ignore[misc]
        hero.until(steps_after(hero, len(hero.steps()), 8), 300, "step after the restart")

    # When it is asked to stop, it drains and leaves nothing behind
    everyone = below(hero.process.pid)
    hero.process.send_signal(signal.SIGTERM)
    assert hero.wait(300) == 0, hero.told()
    all_gone(everyone)
    assert "the same command resumes" in hero.output.read_text()
    stopped_at = hero.steps()[-1]

    # When the same command resumes it, no step is lost or repeated
    before = len(hero.steps())
    hero = start(*FOREVER)
    hero.until(lambda: hero.steps()[-1] > stopped_at + 2, 300, "step after the resume")
    steps = hero.steps()
    assert steps[before:] == list(range(stopped_at + 1, steps[-1] + 1))

    # When `hero up` itself is killed, everybody else dies with it
    everyone = below(hero.process.pid)
    assert len(everyone) >= 5, "server, learner, actor, two scorers and their children"
    hero.process.kill()
    hero.process.wait()
    all_gone(everyone)

    # Then the run still comes to its end, from its last checkpoint, with balanced books
    last = hero.steps()[-1] + 2
    hero = start("--run.steps", str(last))
    assert hero.wait(300) == 0, hero.told()
    summary = json.loads((hero.folder / "summary.json").read_text())
    books = summary["tickets"]
    assert summary["steps"] == last and summary["groups_trained"] == books["trained"] == 4 * last
    assert books["issued"] == sum(books[name] for name in ("trained", "dropped", "dead_lettered", "in_flight"))
    assert books["dead_lettered"] == 0


def test_a_killed_rank_takes_the_others_along_and_all_come_back(start: Callable[..., Hero]) -> None:
    # Given a run whose learner has two ranks
    hero = start(*FOREVER, "--learner.ranks", "2")
    hero.until(steps_after(hero, 0, 4), 300, "step after the first checkpoint")
    ranks = workers(hero, "learner")
    [follower] = [p for p in ranks if b"RANK=1" in Path(f"/proc/{p.pid}/environ").read_bytes().split(b"\0")]

    # When one of them is killed, both are started again and training goes on
    os.kill(follower.pid, signal.SIGKILL)
    hero.until(lambda: not still_alive(ranks), 60, "end of both ranks")
    hero.until(steps_after(hero, len(hero.steps()), 3), 300, "step after the restart")
    assert len(workers(hero, "learner")) == 2
    log = (hero.folder / "logs" / "learner.log").read_text()
    assert "hero: rank 1 of the learner ended without a word" in log and '"event": "resumed"' in log

    # When the run is stopped, both leave
    everyone = below(hero.process.pid)
    hero.process.send_signal(signal.SIGTERM)
    assert hero.wait(300) == 0, hero.told()
    all_gone(everyone)


def test_a_stop_before_the_first_step_is_a_stop(start: Callable[..., Hero], tmp_path: Path) -> None:
    hero = start(*FOREVER, "--weights.folder", str(tmp_path / "weights"))
    hero.until(lambda: workers(hero, "learner"), 120, "learner")
    hero.process.send_signal(signal.SIGTERM)
    assert hero.wait(300) == 0, hero.told()


def test_a_stop_during_the_evaluation_does_not_wait_for_its_end(start: Callable[..., Hero]) -> None:
    hero = start(*FOREVER, "--eval.data", "reasoning-gym", "--eval.problems", "7000")
    evaluations = hero.until(
        lambda: [p for p in below(hero.process.pid) if "deploy.evaluation.sample" in p.command], 120, "evaluation"
    )
    hero.process.send_signal(signal.SIGTERM)
    assert hero.wait(60) == 0, hero.told()
    all_gone(evaluations)
    assert not (hero.folder / "eval" / "eval.json").exists()
