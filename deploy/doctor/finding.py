"""What a check found, how bad that is, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from common.errors import HeroError

Level = Literal["ok", "skipped", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Finding:
    """`Finding("broker.eviction", "error", "maxmemory-policy is allkeys-lru", "CONFIG SET maxmemory-policy ...")`."""

    check: str
    level: Level
    """error: a run would fail or lose something. skipped: why it was not looked at."""
    found: str
    """With its values."""
    remedy: str = ""

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Finding:
        """Of what `asdict` made. Raises ValueError, TypeError for what is none."""
        finding = cls(**given)
        if finding.level not in LEVELS or not all(isinstance(value, str) for value in given.values()):
            raise ValueError(f"not a finding: {given!r:.200}")
        return finding


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)


def warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "warning", found, remedy)


def error(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, "error", found, remedy)


def told(check: str, problem: HeroError) -> Finding:
    """An error that a process of the run would end with: its text ends with what to do."""
    text = str(problem)
    parts = text.rpartition("; ") if "; " in text else text.partition("? ") if "? " in text else text.partition(": ")
    return error(check, parts[0] or text, parts[2])


def counts(findings: Sequence[Finding]) -> dict[Level, int]:
    found = Counter(finding.level for finding in findings)
    return {level: found[level] for level in LEVELS}


def exit_code(findings: Sequence[Finding], *, strict: bool) -> int:
    """0 when a run can begin, 1 when it would fail or lose something; `strict`: also for a warning."""
    found = counts(findings)
    return int(bool(found["error"] or (strict and found["warning"])))


def as_json(findings: Sequence[Finding], code: int) -> dict[str, Any]:
    """{"exit_code", "counts": by level, "findings": [{"check", "level", "found", "remedy"}]}."""
    return {"exit_code": code, "counts": counts(findings), "findings": [asdict(finding) for finding in findings]}
