"""Votes: equal answers are one; the verifier is asked only where it can decide."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from common.accuracy import majority
from deploy.evaluation.votes import Ballot, votes

GOLD = "1/2"
SPELLINGS = ["1/2", "2/4", "1 / 3", "2/6", "3/9", "5", "7"]


class Verifier:
    """Fractions by value; one way only, as a verifier is: an answer that is not in lowest terms is refused."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        self.asked += pairs
        return [self.accepts(gold, given) for gold, given in pairs]

    @staticmethod
    def accepts(gold: str, given: str) -> bool:
        lowest = str(Fraction("".join(given.split())))
        return Fraction("".join(gold.split())) == Fraction(lowest) and "".join(given.split()) == lowest


def ballots(answers: Sequence[str | None]) -> list[Ballot]:
    return [
        Ballot(answer is not None and Fraction("".join(answer.split())) == Fraction(GOLD), answer) for answer in answers
    ]


def outcome(numbers: Sequence[int | None]) -> float:
    given = [number for number in numbers if number is not None]
    return majority(given.count(0), [given.count(number) for number in set(given) - {0}])


def slow(answers: Sequence[str | None]) -> float:
    """By values, with nothing left out."""
    given = [Fraction("".join(answer.split())) for answer in answers if answer is not None]
    best = [value for value in set(given) if given.count(value) == max(map(given.count, given))]
    return (Fraction(GOLD) in best) / len(best) if best else 0.0


@given(st.lists(st.lists(st.sampled_from([None, *SPELLINGS]), max_size=9), max_size=4))
def test_the_outcome_is_that_of_the_values(problems: list[list[str | None]]) -> None:
    # 2/6 and 3/9 are never accepted as each other, but both as 1/3 where that was given
    whole = [[a if a != "3/9" else "2/6" for a in answers] for answers in problems]
    found = votes([ballots(answers) for answers in whole], Verifier())
    for answers, numbers in zip(whole, found, strict=True):
        assert outcome(numbers) == slow(answers)
        assert [number is None for number in numbers] == [answer is None for answer in answers]


def test_equal_answers_are_joined_through_a_third() -> None:
    [found] = votes([ballots(["1/2", "1/2", "2/6", "1 / 3", "3/9"])], Verifier())
    assert found == [0, 0, 1, 1, 1]


def test_nothing_is_asked_where_it_cannot_decide() -> None:
    verifier = Verifier()
    closed: list[list[str | None]] = [
        ["1/2", "1/2", "1/2", "5", "7", None],  # the right one has more votes than all others together
        ["1/2", "5", "5", "7"],  # another one has more votes than it
        ["5", "7", "2/6"],  # nobody is right
        ["1/2", "5", " 5"],  # one wrong answer
        [],
    ]
    assert votes([ballots(answers) for answers in closed], verifier) == [
        [0, 0, 0, 1, 2, None], [0, 1, 1, 2], [1, 2, 3], [0, 1, 1], [],
    ]  # fmt: skip
    assert verifier.asked == []
    votes([ballots(["1/2", "1/2", "5", "7"])], verifier)
    assert verifier.asked == [("5", "7"), ("7", "5")]
