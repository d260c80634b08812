"""Which of a model's own samples a cold start is made of."""

import pytest

from learner.language import is_in
from learner.own_samples import OwnSample, chosen

ALL = ("correct", "terminated", "language")
ENGLISH = "She sold half as many clips in May, so the answer is \\boxed{72}."


def sample(question: str = "q", text: str = ENGLISH, correct: bool = True, terminated: bool = True) -> OwnSample:
    return OwnSample(question, text, correct, terminated)


def test_each_filter_leaves_out_its_own_and_can_be_left_out() -> None:
    group = [sample(), sample(correct=False), sample(terminated=False), sample(text="Sie verkaufte im Mai die Hälfte.")]
    kept, left_out = chosen([group], 10, ALL, "en")
    assert kept == [("q", ENGLISH)]
    assert left_out == {"not correct": 1, "not terminated": 1, "not in en": 1}
    kept, left_out = chosen([group], 10, (), "en")
    assert len(kept) == 2 and left_out == {"repeated": 2}


def test_every_problem_gives_its_first_before_any_gives_its_second() -> None:
    samples = [[sample("a", f"{word} is the answer") for word in ("one", "two", "three")], [sample("b")], []]
    samples[2] = [sample("c", correct=False)]
    kept, left_out = chosen(samples, 3, ALL, "en")
    assert [question for question, _ in kept] == ["a", "b", "a"]
    assert left_out == {"not correct": 1, "more than needed": 1}


def test_nothing_to_choose_from() -> None:
    assert chosen([], 3, ALL, "en") == ([], {})
    assert chosen([[sample(text="  ")]], 3, ALL, "en") == ([], {"empty": 1})


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        "25 + 83 is 5+3=08,2+8+0=10 \\boxed{108}",
        "$x = 3$ and $y = 4$, so $\\text{d} = 5$.",
        "",
        "\\[ \\frac{1}{2} \\]",
        "First Month: 5 x 3 = 15\nSecond Month: 2 x 15 = 30\nTotal: 45",
        "Let $n$ be Zhang Wei's age. Then Zhang Wei is $n$ years old.",
    ],
)
def test_english_and_mathematics_are_english(text: str) -> None:
    assert is_in("en", text)


@pytest.mark.parametrize(
    "text",
    [
        "我们有 48 个夹子,所以四月和五月一共卖了 72 个。",
        "Она продала сорок восемь заколок в апреле и двадцать четыре в мае.",
        "First we add 48 and 24. Daraus folgt also die Antwort. So the answer is \\boxed{72}.",
        "Elle a vendu quarante-huit pinces en avril.",
    ],
)
def test_other_languages_are_not_also_in_the_middle(text: str) -> None:
    assert not is_in("en", text)
