"""What the samples of a problem vote for: equal answers are one, by the verifier's own rules, however written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

Same = Callable[[Sequence[tuple[str, str]]], Sequence[bool]]
"""Whether the second text of each pair is accepted where the first is the gold answer."""
RIGHT = 0


@dataclass(frozen=True)
class Ballot:
    """One sample: whether it is right, and its answer as the verifier read it."""

    right: bool
    answer: str | None


def votes(problems: Sequence[Sequence[Ballot]], same: Same) -> list[list[int | None]]:
    """Per sample the number of its answer: RIGHT, another one from 1 on, None without an answer.

    Right answers are one answer: the gold one. Wrong ones are one where their texts differ in nothing but space, or
    where the verifier accepts either as the other; that is asked, all pairs of all problems at once, only where it can
    decide the vote: where no wrong text alone has more votes than the right answer, and all together have as many.
    """
    texts = [[_text(ballot) for ballot in ballots] for ballots in problems]
    open_ = [place for place, ballots in enumerate(problems) if _undecided(ballots, texts[place])]
    pairs = [(place, *pair) for place in open_ for pair in combinations(_distinct(texts[place]), 2)]
    asked = [both for _, a, b in pairs for both in ((a, b), (b, a))]
    accepted = list(same(asked)) if asked else []
    joined: list[dict[str, str]] = [{} for _ in problems]
    for number, (place, a, b) in enumerate(pairs):
        if accepted[2 * number] or accepted[2 * number + 1]:
            _join(joined[place], a, b)
    return [_numbered(ballots, own, parents) for ballots, own, parents in zip(problems, texts, joined, strict=True)]


def _text(ballot: Ballot) -> str | None:
    """The answer without space; None for a right one, and where there is none."""
    return None if ballot.right or ballot.answer is None else "".join(ballot.answer.split())


def _distinct(texts: Sequence[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text is not None))


def _undecided(ballots: Sequence[Ballot], texts: Sequence[str | None]) -> bool:
    counts = Counter(text for text in texts if text is not None)
    right = sum(ballot.right for ballot in ballots)
    return len(counts) > 1 and 0 < right <= counts.total() and max(counts.values()) <= right


def _root(parents: dict[str, str], text: str) -> str:
    while text in parents:
        text = parents[text]
    return text


def _join(parents: dict[str, str], a: str, b: str) -> None:
    a, b = _root(parents, a), _root(parents, b)
    if a != b:
        parents[b] = a


def _numbered(ballots: Sequence[Ballot], texts: Sequence[str | None], parents: dict[str, str]) -> list[int | None]:
    numbers: dict[str, int] = {}
    found: list[int | None] = []
    for ballot, text in zip(ballots, texts, strict=True):
        if text is None:
            found.append(RIGHT if ballot.right else None)
        else:
            found.append(numbers.setdefault(_root(parents, text), 1 + len(numbers)))
    return found
