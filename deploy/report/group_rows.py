"""One line of a reward log as the page shows it: what a person asks for, its texts shortened and made harmless."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.schema import MAX_COMPLETIONS
from common.untrusted import figure, printable_lines
from learner.reward_log import shortened

TEXT_CHARS = 2**15
"""Of a group's texts, the middle of longer ones is left out."""
WORD_CHARS = 200
"""Of a status, a rule, a reward model's name."""
FIGURES = ("rm_score", "r_hat", "reward", "advantage")
OF_GROUP = ("weight", "sigma_u", "sigma_bar", "sigma_dev")


def slim(line: Mapping[str, Any]) -> dict[str, Any] | None:
    """What of a line is kept, shortened; None for an object that is no line of a reward log."""
    made, step = line.get("completions"), figure(line.get("step"))
    if not isinstance(made, list) or not 0 < len(made) <= MAX_COMPLETIONS or step is None:
        return None
    if not all(isinstance(one, Mapping) and isinstance(one.get("status"), str) for one in made):
        return None
    oldest, newest = _span(made)
    kept = {
        "id": _count(line.get("id")),
        "attempt": _count(line.get("attempt")),
        "step": int(step),
        "outcome": _word(line.get("outcome")),
        "mode": _word(line.get("mode")),
        "reward_model": _word(line.get("reward_model")),
        "gated": line.get("gated") is True,
        **{name: _rounded(line.get(name)) for name in OF_GROUP},
        "oldest": oldest,
        "newest": newest,
        "question": str(line.get("question", "")),
        "gold": str(line.get("gold", "")),
        "completions": [_completion(one) for one in made],
    }
    return shortened(kept, TEXT_CHARS)


def row(group: Mapping[str, Any]) -> dict[str, Any]:
    """A kept group as JSON for the page: every text such that it steers nothing, wherever it is shown."""
    return {name: _shown(value) for name, value in group.items()} | {
        "completions": [{name: _shown(value) for name, value in one.items()} for one in group["completions"]]
    }


def _completion(one: Mapping[str, Any]) -> dict[str, Any]:
    extracted = one.get("extracted")
    return {
        "text": str(one.get("text", "")),
        "status": _word(one["status"]),
        "extracted": None if extracted is None else str(extracted),
        "rule": None if one.get("rule") is None else _word(one["rule"]),
        **{name: _rounded(one.get(name)) for name in FIGURES},
        "tokens": _count(one.get("tokens")),
        "finish": _word(one.get("finish")),
    }


def _span(made: list[Mapping[str, Any]]) -> tuple[list[int] | None, list[int] | None]:
    """The oldest and the newest policy, by step, that sampled a token: [incarnation, step]."""
    found = []
    for one in made:
        versions = one.get("versions")
        for version in versions if isinstance(versions, list) else []:
            if isinstance(version, list) and len(version) == 3 and all(map(_is_count, version)):
                found.append(version[1:])
    by_step = sorted(found, key=lambda version: (version[1], version[0]))
    return (by_step[0], by_step[-1]) if by_step else (None, None)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53  # what JavaScript counts exactly


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and _is_count(value) else None


def _rounded(value: object) -> float | None:
    found = figure(value)
    return None if found is None else float(f"{found:.6g}")


def _word(value: object) -> str:
    return str(value)[:WORD_CHARS]


def _shown(value: object) -> object:
    return printable_lines(value) if isinstance(value, str) else value
