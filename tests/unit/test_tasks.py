"""Problems are deterministic, disjoint, solved by their worked steps, and judged without trust."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import tasks
from common.errors import ConfigError, DataError

FAMILIES = {
    "chain_sum": {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2},
    "simple_geometry": {"min_sides": 3, "max_sides": 5},
    "products": {"min_digits": 1, "max_digits": 2},
    "gcd": {"max_value": 200},
    "time_intervals": {"task_types": ["time", "time_seconds"]},
    "complex_arithmetic": {"min_real": -99, "max_real": 99},
}


def test_worked_solutions_are_right_and_end_in_the_answer() -> None:
    for problem in tasks.generate(FAMILIES, 400, seed=3):
        assert problem.solution is not None
        _, _, boxed = problem.solution.partition(" ")
        assert boxed == f"\\boxed{{{problem.answer}}}"
        assert tasks.judge(problem.meta, problem.answer, problem.solution) == 1.0


@pytest.mark.parametrize(
    ("family", "metadata", "answer", "solution"),
    [
        ("chain_sum", {"expression": "40 + 54 - 77"}, "17", "0+4=04,4+5+0=09;14-7=07,9-7-1=01 \\boxed{17}"),
        ("decimal_chain_sum", {"expression": "6.60 - 6.2"}, "0.4", "00-0=00,66-62-0=04 \\boxed{0.4}"),
        (
            "simple_geometry",
            {"total_interior_sum": 180, "known_angles": [71.0, 42.0]},
            "67",
            "10-1=09,18-7-1=10;09-2=07,10-4-0=06 \\boxed{67}",
        ),
        ("products", {"expression": "42 * 25"}, "1050", "42*20+42*5=840+210=1050 \\boxed{1050}"),
        ("products", {"expression": "25 * 60"}, "1500", "25*60=1500 \\boxed{1500}"),
        (
            "time_intervals",
            {"task_type": "time", "start_time": "2026-01-01 15:33:00", "end_time": "2026-01-01 19:19:00"},
            "03:46",
            "09-3=06,7-3-0=04;08-5=03,1-1-0=00 \\boxed{03:46}",
        ),
        (
            "time_intervals",
            {"task_type": "time_seconds", "start_time": "2026-01-01 01:00:30", "end_time": "2026-01-01 02:00:10"},
            "00:59:40",
            "00-0=00,7-3-0=04;9+0=09,5+0+0=05;01-1=00,0-0-0=00 \\boxed{00:59:40}",
        ),
        (
            "complex_arithmetic",
            {"num1": [3.0, -9.0], "num2": [-6.0, -5.0], "operation": "-"},
            "9.0 - 4.0i",
            "3+6=09,0+0+0=00;-(09-5=04,0-0-0=00) \\boxed{9.0 - 4.0i}",
        ),
        (
            "complex_arithmetic",
            {"num1": [1.0, 2.0], "num2": [3.0, 4.0], "operation": "*"},
            "-5.0 + 10.0i",
            "1*3=3,2*4=8,1*4=4,2*3=6;-(08-3=05,0-0-0=00);4+6=10,0+0+1=01 \\boxed{-5.0 + 10.0i}",
        ),
        (
            "complex_arithmetic",
            {"num1": [-5.0, 10.0], "num2": [3.0, 4.0], "operation": "/"},
            "1.0 + 2.0i",
            "25/25=1,50/25=2 \\boxed{1.0 + 2.0i}",
        ),
    ],
)
def test_the_steps_of_each_family(family: str, metadata: dict[str, object], answer: str, solution: str) -> None:
    assert tasks.worked_solution(family, metadata, answer) == solution


def test_euclids_steps_are_remainders() -> None:
    steps = tasks.worked_solution("gcd", {"numbers": [58, 98]}, "2")
    assert steps == "98,58,40,18,4,2,0 \\boxed{2}"


def test_a_family_without_steps_for_a_problem_gives_it_no_solution() -> None:
    [problem] = tasks.generate({"time_intervals": {"task_types": ["date"]}}, 1, seed=1)
    assert problem.solution is None
    assert tasks.judge(problem.meta, problem.answer, f"\\boxed{{{problem.answer}}}") == 1.0


def test_what_is_kept_of_a_problem_does_not_depend_on_the_day() -> None:
    for problem in tasks.generate({"time_intervals": {"task_types": ["time"]}}, 20, seed=1):
        assert problem.meta["entry"] == '{"task_type":"time"}'


@pytest.mark.parametrize("answer", ["nan", "NaN+NaNj", "1+nanj", "inf", "-infj", "infinity"])
def test_what_is_no_number_is_not_right(answer: str) -> None:
    # Given that reasoning-gym itself finds no distance between nan and the right answer
    [problem] = tasks.generate({"complex_arithmetic": {}}, 1, seed=1)
    # Then it earns nothing here
    assert tasks.judge(problem.meta, problem.answer, f"\\boxed{{{answer}}}") == 0.0


def test_the_same_seed_gives_the_same_problems_in_every_process() -> None:
    here = tasks.generate(FAMILIES, 12, seed=7)
    code = f"from common import tasks; print(*[p.question for p in tasks.generate({FAMILIES!r}, 12, seed=7)], sep='|')"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert there.stdout.strip().split("|") == [problem.question for problem in here]


def test_families_take_turns() -> None:
    families = [problem.meta["task"] for problem in tasks.generate(FAMILIES, 12, seed=1)]
    assert families == list(FAMILIES) * 2


def test_excluded_questions_never_come_again_and_none_repeats() -> None:
    held_out = {problem.question for problem in tasks.generate(FAMILIES, 500, seed=1)}
    fresh = [problem.question for problem in tasks.generate(FAMILIES, 500, 1, exclude=held_out)]
    assert len(held_out) == 500
    assert len(set(fresh)) == 500
    assert held_out.isdisjoint(fresh)


def test_neighbouring_seeds_share_almost_nothing() -> None:
    family = {"chain_sum": {"min_terms": 4, "max_terms": 4, "min_digits": 3, "max_digits": 3}}
    one, two = ({p.question for p in tasks.generate(family, 300, seed)} for seed in (1, 2))
    assert not one & two


def test_an_exhausted_family_is_an_error_and_not_a_loop() -> None:
    few = {"gcd": {"min_value": 1, "max_value": 2}}
    with pytest.raises(DataError, match="200 problems in a row"):
        tasks.generate(few, 100, seed=0)


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({}, "no task family"),
        ({"chess": {}}, "unknown task family 'chess'"),
        ({"gcd": {"max_valeu": 9}}, "max_valeu"),
        ({"gcd": {"min_value": 9, "max_value": 1}}, "gcd"),
    ],
)
def test_wrong_configurations_are_refused(families: dict[str, dict[str, int]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tasks.generate(families, 1, seed=0)


@pytest.mark.parametrize(
    ("text", "boxed"),
    [
        ("1+1=2 \\boxed{2}", "2"),
        ("\\boxed{1} no, \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{}", ""),
        ("\\boxed{1", None),
        ("42", None),
        ("\\boxed{" + "9" * 10_000 + "}", None),
        ("\\boxed{5}" + "x" * 100_000, None),
    ],
)
def test_last_boxed(text: str, boxed: str | None) -> None:
    assert tasks.last_boxed(text) == boxed


GOLD = tasks.generate({"gcd": {}}, 1, seed=0)[0]


def test_a_wrong_answer_is_not_fully_scored() -> None:
    assert tasks.judge(GOLD.meta, "12", "\\boxed{13}") < 1.0
    assert tasks.judge(GOLD.meta, "12", "12") == 0.0
    assert tasks.judge(GOLD.meta, "12", "\\boxed{ 12 }") == 1.0


@given(st.text(max_size=300))
def test_no_completion_breaks_the_judge(text: str) -> None:
    for completion in (text, f"\\boxed{{{text}}}"):
        assert 0.0 <= tasks.judge(GOLD.meta, "12", completion) <= 1.0


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"task": "codeio", "entry": "{}"},
        {"task": "gcd"},
        {"task": "gcd", "entry": "[" * 3_000},
        {"task": "gcd", "entry": "1" * 5_000},
    ],
)
def test_hostile_metadata_is_a_data_error(meta: dict[str, str]) -> None:
    with pytest.raises(DataError):
        tasks.judge(meta, "1", "\\boxed{1}")


def test_importing_tasks_loads_no_heavy_module() -> None:
    code = "import sys, common.tasks; print({'torch', 'vllm', 'reasoning_gym'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout.strip() == "set()"
