"""Whether an answer is the gold one, and by which rule. What the gold is decides how the answer is read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scorer.equivalence import engine
from scorer.equivalence.forms import Form, Listed, Matrix, Quantity, Ratio, Region, Relation, Words, text_of
from scorer.equivalence.latex import TEXT, canonical, one_spelling
from scorer.equivalence.plain_numbers import number
from scorer.equivalence.quantities import same_quantity
from scorer.equivalence.reading import read
from scorer.equivalence.regions import region, same_region
from scorer.equivalence.relations import same_relation, same_value
from scorer.equivalence.several import same_list, same_matrix, same_ratio
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
_EXPLAINS = re.compile(
    r"[^,;]{1,40}[,;]\s*(?:\\text\s*\{)?\s*(?:because|since|as|so|for|where|which|it|this|they|there|but|if)\b", re.I
)
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
    if _same_choice(*plain):
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


def _same_choice(right: str, given: str) -> bool:
    """The same letter, and the same beside it where both say what that is."""
    choices = choice(right), choice(given)
    if choices[0] is None or choices[1] is None or choices[0][0] != choices[1][0]:
        return False
    texts = choices[0][1], choices[1][1]
    return not all(texts) or _same(read(texts[0]), read(texts[1])) is not None


def _same(right: Form, given: Form) -> str | None:
    if right == given:
        return "same form"
    if isinstance(right, Words) or isinstance(given, Words) or (_wordy(right) and _wordy(given)):
        return _worded(right, given) or (same_list(right, given, _same) if isinstance(right, Listed) else None)
    if isinstance(right, Relation):
        return same_relation(right, given, _same)
    if isinstance(right, Region) or isinstance(given, Region):
        return _regions(right, given)
    if isinstance(given, Relation):
        return same_value(right, given, _same)
    if isinstance(right, Matrix) or isinstance(given, Matrix):
        return same_matrix(right, given, _same)
    if isinstance(right, Listed) or isinstance(given, Listed):
        rule = same_list(right, given, _same)
        if rule is None and isinstance(right, Listed) and isinstance(given, Listed) and right.brackets == "()":
            rule = _renamed(right, given)
        return rule
    if isinstance(right, Ratio) or isinstance(given, Ratio):
        return same_ratio(right, given)
    assert isinstance(right, Quantity) and isinstance(given, Quantity)
    return same_quantity(right, given) or (_renamed(right, given) if right.unit == given.unit else None)


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
    if rule == "same words" or (rule and not _enumerates(right) and not _enumerates(given)):
        return rule
    for words, other, text in ((right, given, texts[0]), (given, right, texts[1])):
        numbers = _NUMBER.findall(re.sub(r"(?<=\d),(?=\d{3})", "", text))
        if isinstance(words, Words) and isinstance(other, Quantity) and numbers == [other.scalar]:
            return "number among words" if len(text.split()) <= FEW_WORDS else None
    return None


def _enumerates(form: Form) -> bool:
    """Answers one after the other, of which none stands for all; no sentence with a comma: yes, because."""
    return isinstance(form, Listed) and not _EXPLAINS.match(form.text)


def _regions(right: Form, given: Form) -> str | None:
    texts = [text_of(form) for form in (right, given)]
    if any(isinstance(form, Relation | Matrix | Ratio) for form in (right, given)):
        return None
    sets = [region(text) for text in texts]
    if None in sets:
        return None
    return "same set" if same_region(*sets) else None


def _renamed(form: Form, other: Form) -> str | None:
    """k pi and n pi: one name is another one's, of those that stand for any whole number or constant."""
    right, given = text_of(form), text_of(other)
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
