"""Answers in words: the same ones, the same choice, or a short answer that a whole sentence gives."""

from __future__ import annotations

import re

from scorer.equivalence.latex import TEXT

_FILLERS = "a an the is are was were be it its that this there of in to for with by as at any so we have"
_DENIALS = "not no never neither nor none cannot without isnt doesnt dont cant non nothing"
_NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
_DIGITS = {word: str(value) for value, word in enumerate(_NUMERALS.split())}
_DIGITS |= {word: str(value) for value, word in enumerate(_ORDINALS.split(), 1)} | {"once": "1", "twice": "2"}
_NEGATIONS = frozenset(_DENIALS.split())
_FILLER = frozenset(_FILLERS.split())
_SAME = (
    (r"infinitely many(?: solutions?)?|infinite(?:ly)?|infinity|unlimited", "infinity"),
    (r"(?:there (?:is|are) )?no (?:real )?(?:solutions?|roots?)|does not exist|dne|empty set|none", "nosolution"),
    (r"true|correct", "yes"),
    (r"false|incorrect", "no"),
    (r"all (?:the )?real(?: number)?s?(?: numbers)?", "reals"),
)
_CHOICE = re.compile(
    r"(?:[Oo]ption|[Cc]hoice|[Aa]nswer|OPTION|CHOICE|ANSWER)?\s*(?:\(([A-Ja-j])\)|([A-J])(?=[.):]|$)[.):]?)\s*(.*)",
    re.S,
)
_ORDINAL = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
_TIME = re.compile(r"(\d{1,2}):(\d\d)\s*(?:([aApP])\.?\s*[mM]\.?)?")
SHORT, MOST_WORDS = 3, 40


def bare_words(text: str) -> str:
    """A text without braces and marks, in small letters: what is compared word by word."""
    text = re.sub(r"\\(?:dollar|deg)(?![a-zA-Z])", " ", TEXT.sub(r" \1 ", text))
    text = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text.lower())
    return re.sub(r"[^a-z0-9.<>=+*/^\\-]+", " ", text).strip(" .")


def tokens(text: str) -> list[str]:
    """Words, numbers and signs that carry meaning, in one form."""
    text = text.lower().replace("'", "")
    for pattern, becomes in _SAME:
        text = re.sub(rf"^\W*(?:{pattern})\W*$", becomes, text)
    words = re.findall(r"\\?[a-z]+|\d+(?:\.\d+)?|[<>=+*/^-]", _ORDINAL.sub("", text))
    return [_stem(_DIGITS.get(word, word)) for word in words if word not in _FILLER][: MOST_WORDS + 1]


def choice(text: str) -> tuple[str, str] | None:
    """The letter of a multiple choice, and what stands there: B, (B), B. 42, option B."""
    found = _CHOICE.fullmatch(text.strip())
    return ((found[1] or found[2]).upper(), found[3].strip()) if found else None


def same_time(right: str, given: str) -> bool:
    """3:30 PM, 3:30 p.m. and 15:30; one that does not say which half of the day means either."""
    found = _TIME.fullmatch(right.strip()), _TIME.fullmatch(given.strip())
    if found[0] is None or found[1] is None:
        return False
    halves = [time[3].lower() if time[3] else "" for time in found if time]
    minutes = [
        int(time[1]) % (12 if half else 24) * 60 + int(time[2]) + 720 * (half == "p")
        for time, half in zip(found, halves, strict=True)
        if time
    ]
    return minutes[0] == minutes[1] or (("" in halves) and halves != ["", ""] and minutes[0] % 720 == minutes[1] % 720)


def same_words(right: str, given: str) -> str | None:
    """The rule by which two texts answer alike, or None."""
    wanted, said = tokens(right), tokens(given)
    if not wanted or not said or max(len(wanted), len(said)) > MOST_WORDS:
        return None
    if wanted == said:
        return "same words"
    if _NEGATIONS & set(wanted) != _NEGATIONS & set(said):
        return None
    at_an_end = said in (wanted[: len(said)], wanted[-len(said) :])  # its subject, or what it says of it
    if len(said) <= SHORT and len(wanted) > len(said) and at_an_end and _tells(said):
        return "named in the sentence"
    if len(wanted) <= SHORT and _contains(said, wanted) and _tells(wanted) and len(said) <= 4 * SHORT:
        return "sentence names it"
    return None


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _tells(words: list[str]) -> bool:
    return any(len(word) > 2 and word.isalpha() for word in words)


def _contains(text: list[str], words: list[str]) -> bool:
    return any(text[at : at + len(words)] == words for at in range(len(text) - len(words) + 1))
