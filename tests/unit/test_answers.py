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
        (r"\boxed{\boxed{4}}", r"\boxed{4}"),
        (r"so \boxed{42", "42"),
        (r"so \boxed{\frac{1}{2}", r"\frac{1}{2}"),
        (r"so $\boxed{42$, and that is it", "42"),
        (r"so \(\boxed{x = 5\) or so", "x = 5"),
        ("\\boxed{42.\nThus it is done.", "42"),
        ("The answer is 42.", "42"),
        ("1 + 1 = 2. The final answer is: $42$. I hope it is correct.", "$42$"),
        ("The answer is\n\\[\n\\frac{1}{2}\n\\]", r"\frac{1}{2}"),
        ("**Final Answer**\n\n42 apples", "42 apples"),
        ("**Answer:** (B)", "(B)"),
        ("The correct answer is C.", "C"),
        ("The answer is yes.", "yes"),
        ("Answer: $x = 3$ or $x = 5$.", "$x = 3$ or $x = 5$"),
        ("The answer is 3.5, which is seven halves.", "3.5"),
        ("2 + 2 = 4\n#### 1,234", "1,234"),
        ("2 + 2 = 4\nA: 26", "26"),
        ("2 + 2 = 4, so there are **6**.", "6"),
        (r"Final answer: the answer is \(\frac{n! (n - 1)!}{2}\).", r"\(\frac{n! (n - 1)!}{2}\)"),
        (r"Thus the slope is \(1\). Hence the slope is \(1\).", r"\(1\)"),
        ("We get $5$ and $4$. Thus the number of cards is $9$.", "$9$"),
        (r"so $\boxed{255}$ of interest. Final answer: the final answer is $10455$.", "$10455$"),
        (r"so $\boxed{255}$. The answer is clear. Check: 5 * 51 = 255.", "255"),
        (r"x = \frac{1}{2}", r"x = \frac{1}{2}"),
        ("  -42 ", "-42"),
    ],
)
def test_an_answer_is_taken_without_what_surrounds_it(completion, text):
    assert find_answer(completion, 4000) == Answer(text, "exact")


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "  \n ",
        r"\boxed{}",
        r"\boxed{ }",
        r"1+1=2 \boxed{2 +",
        r"1+1=2 \boxed{\frac{1}{",
        r"1+1=2 \boxed{(1,",
        r"1+1=2 \boxed{x = \sqrt",
        r"\boxed{" * 9,
    ],
)
def test_nothing_to_judge(completion):
    assert find_answer(completion, 4000) is None


@pytest.mark.parametrize(
    "completion",
    [
        "The answer is 5. But wait, that is wrong: it is 7.",
        "The answer is found by adding 3 and 4. It is $7$.",
        "**Step 2:** it is $7$",
        "The answer is 5. " + "Now to something else. " * 20 + "It is $7$",
    ],
)
def test_what_is_said_of_an_answer_is_none(completion):
    assert find_answer(completion, 4000).kind == "tail"


def test_without_a_box_the_end_is_judged():
    assert find_answer("it is $42$", 4000) == Answer("it is $42$", "tail")
    assert find_answer("a" * 9000 + " so it is $42$", 100) == Answer("a" * 86 + " so it is $42$", "tail")


def test_what_is_in_a_box_is_bounded():
    assert find_answer(r"\boxed{" + "9" * 100 + "}", 100) == Answer("9" * 100, "exact")
    assert find_answer(r"\boxed{" + "9" * 101 + "}", 100) is None


@pytest.mark.parametrize(
    "piece",
    [
        r"\boxed{",
        r"\boxed{{",
        "{",
        "}",
        "\\",
        r"\boxed{}, ",
        "answer ",
        "answer is ",
        "**a",
        "so is $",
        "So ",
        "\n*",
        "\n# ",
    ],
)
def test_a_megabyte_of_anything_takes_no_time(piece):
    start = time.thread_time()
    for _ in range(4):
        find_answer(piece * (1_000_000 // len(piece)), 4000)
    assert time.thread_time() - start < 1.0
