"""Which part of a completion is judged."""

import time

import pytest

from scorer.answers import Answer, find_answer


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        (r"so \boxed{42}.", "42"),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} is it", r"\frac{1}{2}"),
        (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
        (r"\boxed {7}", "7"),
        (r"\boxed{3} and then I was cut: \boxed{4", "3"),
        (r"\( \boxed{-2} \quad \text{and} \quad \boxed{1} \)", "-2, 1"),
        (r"$\boxed{5}$, $\boxed{5}$", "5"),
        (r"\boxed{5}" + "\n\n" + r"\boxed{6}", "6"),
        ("\\boxed{8}" + "x" * 10_000, "8"),
        (r"x = \frac{1}{2}", r"x = \frac{1}{2}"),
        ("  -42 ", "-42"),
    ],
)
def test_an_answer_is_taken_without_what_surrounds_it(completion, text):
    assert find_answer(completion, 4000) == Answer(text, "exact")


@pytest.mark.parametrize("completion", ["", "  \n ", r"\boxed{}", r"\boxed{ }", r"1+1=2 \boxed{2", r"\boxed{" * 9])
def test_nothing_to_judge(completion):
    assert find_answer(completion, 4000) is None


def test_without_a_box_the_end_is_judged():
    assert find_answer("it is $42$", 4000) == Answer("it is $42$", "tail")
    assert find_answer("a" * 9000 + " the answer is 42", 100) == Answer("a" * 83 + " the answer is 42", "tail")


def test_what_is_in_a_box_is_bounded():
    assert find_answer(r"\boxed{" + "9" * 100 + "}", 100) == Answer("9" * 100, "exact")
    assert find_answer(r"\boxed{" + "9" * 101 + "}", 100) is None


@pytest.mark.parametrize("piece", [r"\boxed{", r"\boxed{{", "{", "}", "\\", r"\boxed{}, "])
def test_a_megabyte_of_anything_takes_no_time(piece):
    start = time.perf_counter()
    find_answer(piece * (1_000_000 // len(piece)), 4000)
    assert time.perf_counter() - start < 1.0
