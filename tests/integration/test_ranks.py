"""Ranks of a learner as real processes: they agree, follow rank 0, and end together whatever ends one of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import ConfigError, RankLost
from common.settings import Sections
from deploy.processes import Processes
from learner.ranks import joined
from tests.until import until

START_S = 120.0
END_S = 60.0  # a collective alone would wait for half an hour


class Job:
    """So many ranks of one scenario of rank_script.py."""

    def __init__(self, scenario: str, model: Path, folder: Path, ranks: int) -> None:
        self.logs = [folder / f"rank-{rank}.log" for rank in range(ranks)]
        command = [sys.executable, "-m", "tests.integration.rank_script", scenario, str(model)]
        self.processes = Processes(command, 1, None, self.logs)

    def told(self, rank: int) -> str:
        return self.logs[rank].read_text()

    def until_all_are_ready(self) -> None:
        until(lambda: all("ready" in log.read_text() for log in self.logs), "ready ranks", START_S)

    def send(self, rank: int, number: int) -> None:
        os.kill(self.processes._processes[rank].pid, number)

    def codes(self) -> list[int | None]:
        """Exit codes of all ranks, once each has ended by itself."""
        processes = self.processes._processes
        until(lambda: all(process.poll() is not None for process in processes), "end of all ranks", START_S + END_S)
        return [process.returncode for process in processes]


@pytest.fixture
def start(model: Path, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def start(scenario: str, ranks: int = 2) -> Job:
        jobs.append(Job(scenario, model, tmp_path, ranks))
        return jobs[-1]

    yield start
    for job in jobs:
        job.processes.kill()


@pytest.mark.parametrize("asked", [[1], [0, 1]])
def test_they_follow_rank_0_until_any_or_all_are_asked_to_stop(start: Callable[..., Job], asked: list[int]) -> None:
    job = start("follows", ranks=2)
    job.until_all_are_ready()
    for rank in asked:
        job.send(rank, signal.SIGTERM)
    assert job.codes() == [0, 0], [job.told(0), job.told(1)]
    assert all("hero:" not in job.told(rank) for rank in range(2))


@pytest.mark.parametrize(("victim", "scenario", "ranks"), [(1, "waits_for_1", 3), (0, "waits_for_0", 2)])
def test_a_killed_rank_ends_all_at_once_by_name(
    start: Callable[..., Job], victim: int, scenario: str, ranks: int
) -> None:
    job = start(scenario, ranks)
    job.until_all_are_ready()
    job.send(victim, signal.SIGKILL)
    codes = job.codes()
    assert codes.pop(victim) == -signal.SIGKILL and set(codes) == {RankLost.exit_code}
    for rank in set(range(ranks)) - {victim}:
        assert f"hero: rank {victim} of the learner ended without a word" in job.told(rank), job.told(rank)
    assert job.processes.poll() == -signal.SIGKILL and job.processes.blame() == victim


def test_a_rank_that_fails_ends_all_with_its_reason(start: Callable[..., Job]) -> None:
    job = start("fails")
    assert job.codes() == [RankLost.exit_code, 1]
    assert "hero: rank 1 of the learner ended: ValueError: the GPU is on fire" in job.told(0)
    assert "Traceback" in job.told(1) and "hero:" not in job.told(1)
    assert job.processes.poll() == 1 and job.processes.blame() == 1


def test_ranks_that_are_not_alike_end_with_key_rank_and_both_values(start: Callable[..., Job]) -> None:
    job = start("unlike")
    assert job.codes() == [ConfigError.exit_code, RankLost.exit_code]
    told = "learner.lr = 2e-05 on rank 1, 5e-05 on rank 0"
    assert told in job.told(0) and told in job.told(1)
    assert job.processes.blame() == 0


def test_an_exit_code_outlives_collectives_that_nobody_waited_for() -> None:
    ends_early = """
import torch, torch.distributed as dist
from learner import distributed
distributed.join()
for _ in range(200):
    part = torch.ones(2**18)
    dist.all_gather([torch.empty_like(part)], part, async_op=True)
raise SystemExit(3)
"""
    for _ in range(3):  # without a last word to gloo's threads, seven of eight are aborted
        assert subprocess.run([sys.executable, "-c", ends_early], timeout=START_S).returncode == 3


@pytest.mark.parametrize(
    ("environment", "ranks", "says"),
    [
        ({}, 2, "learner.ranks = 2, but this process is alone: start it by `torchrun --nproc-per-node 2"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, 1, "RANK, WORLD_SIZE set but MASTER_ADDR, MASTER_PORT, LOCAL_RANK not"),
        (dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), "0") | {"WORLD_SIZE": "4"}, 2,
         "the launcher started 4 (WORLD_SIZE): set learner.ranks = 4"),
    ],
)  # fmt: skip
def test_another_number_of_ranks_than_the_launchers_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], ranks: int, says: str
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)  # another test's policy has set it
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught, joined(Sections.model_validate({"learner": {"ranks": ranks}})):
        pass
    assert says in str(caught.value)
