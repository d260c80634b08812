"""Models on the same problems, against every choice of signs, with different numbers of samples."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction
from pathlib import Path

import pytest

from deploy.evaluation import rows
from deploy.evaluation.paired import compared
from tests.make import evaluated

A = [[True, False], [False, False], [True, True], [False, True], [False, False], [False, False]]
B = [
    [True, True, False],
    [False, True, False],
    [True, True, True],
    [True, True, True],
    [True, True, False],
    [False] * 3,
]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, dict[str, rows.Result]]:
    evaluated(tmp_path, "a", [True, False, True, False, False, False], A)
    evaluated(tmp_path, "b", [True, True, True, True, True, False], B)
    return {name: {"sums": rows.read(rows.path(tmp_path, name, "sums"))} for name in ("a", "b")}


def test_each_problem_is_its_own_control(models: dict[str, dict[str, rows.Result]]) -> None:
    greedy, sampled = compared(models)
    assert greedy["models"] == sampled["models"] == ["a", "b"] and greedy["set"] == sampled["set"] == "sums"
    assert (greedy["figure"], greedy["difference"], greedy["p"]) == (
        "greedy",
        pytest.approx(3 / 6),
        pytest.approx(2 / 8),
    )
    steps = [Fraction(sum(b), 3) - Fraction(sum(a), 2) for a, b in zip(A, B, strict=True)]
    sums = [sum(s * x for s, x in zip(signs, steps, strict=True)) for signs in itertools.product((-1, 1), repeat=6)]
    assert sampled["difference"] == pytest.approx(float(sum(steps) / 6))
    assert sampled["p"] == pytest.approx(sum(abs(total) >= abs(sum(steps)) for total in sums) / len(sums))
    assert sampled["low"] < sampled["difference"] < sampled["high"]


def test_other_problems_are_not_compared(models: dict[str, dict[str, rows.Result]]) -> None:
    b = models["b"]["sums"]
    other = dataclasses.replace(b, asked=dataclasses.replace(b.asked, set_digest="other"))
    assert compared(models | {"b": {"sums": other}}) == []
    assert compared(models | {"b": {"more": b}}) == []
