"""Whether an answer is the gold one, and by which rule. What the gold is decides how the answer is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from scorer.equivalence import engine
from scorer.equivalence.forms import Form, Listed, Matrix, Quantity, Ratio, Region, Relation, Words, text_of
from scorer.equivalence.latex import TEXT, canonical, one_spelling
from scorer.equivalence.plain_numbers import number
from scorer.equivalence.quantities import same_quantity
from scorer.equivalence.reading import read
from scorer.equivalence.regions import region, same_region
from scorer.equivalence.relations import same_relation, same_value
from scorer.equivalence.symbols import names
from scorer.equivalence.words import bare_words, choice, same_time, same_words, tokens

_ARITHMETIC = re.compile(r"(?<=[\d)}])\s*(?:[-+*/]|\\(?:cdot|times|div)(?![a-zA-Z]))\s*(?=[\d({\\])")
_SYMBOLS = {
    r"\infty": "infinity",
    r"\emptyset": "no solution",
    r"\{\}": "no solution",
    r"\mathbb{R}": "all real numbers",
}
_PARAMETERS = frozenset(["k", "n", "m", "t", "s", "l", "c", "C", "K", "N", "p", "q", "r", "j"])
_LETTER = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
FEW_WORDS = 4
_FOR_INTEGERS = re.compile(
    r"(?:\\text\s*\{)?[ ,(]*(?:where|for|with)\b[^{}=]*"
    r"(?:\bintegers?\b|\\in\s*\\mathbb|\breal\b|\bconstant\b|\barbitrary\b).*$"
    r"|,?\s*\(?\s*[a-z]\s*\\in\s*\\mathbb\s*\{?[ZN].*$",
    re.S,
)


@dataclass(frozen=True)
class Options:
    unevaluated: bool = False
    """Accept 2+2 where 4 is asked for."""


NO_OPTIONS = Options()


def equal(gold: str, given: str, options: Options = NO_OPTIONS) -> str | None:
    """The rule by which the given answer is the gold one; None where none holds. May never return."""
    right, answer = one_spelling(gold), one_spelling(given)
    if canonical(right) == canonical(answer):
        return "same text"
    if not options.unevaluated and _is_arithmetic(answer) and not _is_arithmetic(right):
        return None
    plain = [TEXT.sub(r"\1", text) for text in (right, answer)]
    if choice(plain[0]) is not None and choice(plain[0]) == choice(plain[1]):
        return "same choice"
    if same_time(*plain):
        return "same time"
    return _same(read(right), read(answer)) or _opened(right, answer)


def is_answer(text: str) -> bool:
    """Whether a text can be an answer at all: words, numbers, or what math-verify reads."""
    form = read(text)
    if isinstance(form, Quantity):
        return number(form.scalar) is not None or choice(text) is not None or engine.expression(form.scalar) is not None
    return not isinstance(form, Words) or bool(tokens(form.text))


def _is_arithmetic(text: str) -> bool:
    """A sum or product of numbers that was left as it is: no answer, where a number is asked for."""
    if number(text) is not None or names(text) or re.search(r"\\(?!cdot|times|div)[a-zA-Z]|[,;:=<>!^_]|\\[{}]", text):
        return False
    return _ARITHMETIC.search(text) is not None


def _same(right: Form, given: Form) -> str | None:
    if right == given:
        return "same form"
    if isinstance(right, Words) or isinstance(given, Words) or (_wordy(right) and _wordy(given)):
        return _worded(right, given) or (_lists(right, given) if isinstance(right, Listed) else None)
    if isinstance(right, Relation):
        return same_relation(right, given, _same)
    if isinstance(right, Region) or isinstance(given, Region):
        return _regions(right, given)
    if isinstance(given, Relation):
        return same_value(right, given, _same)
    if isinstance(right, Matrix) or isinstance(given, Matrix):
        return _matrices(right, given)
    if isinstance(right, Listed) or isinstance(given, Listed):
        return _lists(right, given)
    if isinstance(right, Ratio) or isinstance(given, Ratio):
        return _ratios(right, given)
    assert isinstance(right, Quantity) and isinstance(given, Quantity)
    return same_quantity(right, given) or _renamed(right.scalar, given.scalar)


def _wordy(form: Form) -> bool:
    return isinstance(form, Listed) and any(isinstance(item, Words) for item in form.items)


def _opened(right: str, given: str) -> str | None:
    """Once more without what the answer says about its parameters: "for some integer t"."""
    shorter = _FOR_INTEGERS.sub("", right).strip(), _FOR_INTEGERS.sub("", given).strip()
    if shorter == (right, given) or not all(shorter):
        return None
    return _same(read(shorter[0]), read(shorter[1]))


def _worded(right: Form, given: Form) -> str | None:
    texts = [_SYMBOLS.get(text_of(form).strip(), bare_words(text_of(form))) for form in (right, given)]
    rule = same_words(*texts)
    if rule:
        return rule
    for words, other, text in ((right, given, texts[0]), (given, right, texts[1])):
        numbers = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3})", "", text))
        if isinstance(words, Words) and isinstance(other, Quantity) and numbers == [other.scalar]:
            return "number among words" if len(text.split()) <= FEW_WORDS else None
    return None


def _regions(right: Form, given: Form) -> str | None:
    texts = [text_of(form) for form in (right, given)]
    if any(isinstance(form, Relation | Matrix | Ratio) for form in (right, given)):
        return None
    sets = [region(text) for text in texts]
    if None in sets:
        return None
    return "same set" if same_region(*sets) else None


def _matrices(right: Form, given: Form) -> str | None:
    if isinstance(right, Matrix) and isinstance(given, Matrix) and not (right.rows and given.rows):
        return "same matrix" if engine.same(right.text, given.text) else None
    rows = [_rows(form) for form in (right, given)]
    if rows[0] is None or rows[1] is None or [len(row) for row in rows[0]] != [len(row) for row in rows[1]]:
        return None
    if all(_same(a, b) for one, other in zip(*rows, strict=True) for a, b in zip(one, other, strict=True)):
        return "entry by entry"
    return None


def _rows(form: Form) -> tuple[tuple[Form, ...], ...] | None:
    """A matrix; what is one column or row, and a tuple, as one row."""
    if isinstance(form, Matrix):
        if not form.rows:
            return None
        return form.rows if any(len(row) > 1 for row in form.rows) else (tuple(row[0] for row in form.rows if row),)
    return (form.items,) if isinstance(form, Listed) and form.brackets in ("()", "[]") else None


def _lists(right: Form, given: Form) -> str | None:
    if not isinstance(right, Listed):
        if isinstance(given, Listed) and given.brackets == "{}" and len(given.items) == 1:
            return _same(right, given.items[0])
        return None
    if not isinstance(given, Listed):
        return _same(right.items[0], given) if len(right.items) == 1 and right.brackets in ("", "{}") else None
    if right.brackets in ("", "{}") and given.brackets in ("", "{}"):
        return "same answers in any order" if _matched(right.items, given.items) else None
    ordered = right.brackets == given.brackets or (right.brackets, given.brackets) in (("", "()"), ("()", ""))
    if not ordered or len(right.items) != len(given.items):
        return None
    if all(_same(a, b) for a, b in zip(right.items, given.items, strict=True)):
        return "part by part"
    if right.brackets == "()":
        return "part by part, renamed" if _renamed(text_of(right), text_of(given)) else None
    return None


def _matched(right: Sequence[Form], given: Sequence[Form]) -> bool:
    """Every answer of one list is one of the other."""
    left = list(given)
    if len(right) != len(left):
        return False
    for wanted in right:
        found = next((item for item in left if _same(wanted, item)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _ratios(right: Form, given: Form) -> str | None:
    parts = [form.parts if isinstance(form, Ratio) else (text_of(form), "1") for form in (right, given)]
    if len(parts[0]) != len(parts[1]):
        return None
    a, b = parts[0][0], parts[1][0]
    same = all(
        engine.same(f"({x}) \\cdot ({b})", f"({y}) \\cdot ({a})")
        for x, y in zip(parts[0][1:], parts[1][1:], strict=True)
    )
    return "same ratio" if same else None


def _renamed(right: str, given: str) -> str | None:
    """k pi and n pi: one name is another one's, of those that stand for any whole number or constant."""
    letters = set(_LETTER.findall(right)), set(_LETTER.findall(given))
    gone, come = letters[0] - letters[1], letters[1] - letters[0]
    if len(gone) != 1 or len(come) != 1 or canonical(right) in gone:
        return None
    [old], [new] = gone, come
    if old.lower() != new.lower() and not (new in _PARAMETERS and (old in _PARAMETERS or right.startswith("("))):
        return None
    text = re.sub(rf"(?<![\\a-zA-Z]){new}(?![a-zA-Z])", old, given)
    rule = _same(read(right), read(text))
    return f"{rule}, {new} for {old}" if rule else None


__all__ = ["NO_OPTIONS", "Options", "equal", "is_answer"]
