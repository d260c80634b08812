"""Cores for actors and for the others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deploy.cores import Cores, current, divide, keep_to

SHOW = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]


@pytest.mark.parametrize(
    ("cores", "actors", "threads", "learner", "expected"),
    [
        ([4, 7], 1, 1, 1, Cores([{4}], {7})),
        (range(8), 2, 3, 2, Cores([{0, 1, 2}, {3, 4, 5}], {6, 7})),
        (range(4), 0, 2, 1, Cores([], {0, 1, 2, 3})),
        ([0, 1], 1, 1, 2, None),
        ([0, 1], 2, 1, 1, None),
        ([0], 1, 1, 1, None),
    ],
)
def test_every_thread_of_an_actor_has_a_core_and_the_learner_its_own(cores, actors, threads, learner, expected) -> None:
    assert divide(list(cores), actors=actors, actor_threads=threads, learner_threads=learner) == expected


def test_processes_start_on_the_cores_they_are_kept_to_and_we_return() -> None:
    before = current()
    chosen = {max(before)}
    with keep_to(chosen):
        assert subprocess.check_output(SHOW, text=True).strip() == str(sorted(chosen))
    assert os.sched_getaffinity(0) == before
    with pytest.raises(RuntimeError), keep_to(chosen):
        raise RuntimeError
    assert os.sched_getaffinity(0) == before
