"""Whether a text is in one language throughout, mathematics aside."""

from __future__ import annotations

import functools
import re
from typing import Any

SURE = 0.5
"""Of another language; sums and names alone look like anything, with less than this."""

_MATH = re.compile(r"\$\$.*?\$\$|\$.*?\$|\\\[.*?\\\]|\\\(.*?\\\)", re.DOTALL)
_NOT_PROSE = re.compile(r"\\[a-zA-Z]+|[^\w\s.,'!?。！？-]|[0-9_]")  # noqa: RUF001 - ends of sentences
_SENTENCE_END = re.compile(r"[\n.!?。！？]+")  # noqa: RUF001


def is_in(language: str, text: str) -> bool:
    """False when some sentence of `text` is surely in another language than `language` (ISO 639: "en").

    Judged sentence by sentence by py3langid, since a model that changes its language does so in the middle. What has
    no prose is in every language.
    """
    prose = _NOT_PROSE.sub(" ", _MATH.sub(" ", text))
    for sentence in _SENTENCE_END.split(prose):
        if words := " ".join(sentence.split()):
            found, probability = _identifier().classify(words)
            if found != language and probability >= SURE:
                return False
    return True


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
