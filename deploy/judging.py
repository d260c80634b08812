"""Completions judged outside of a run, in the sandbox that a scorer has."""

from __future__ import annotations

from collections.abc import Sequence

from common.progress import Bars
from common.settings import Sections
from common.tasks import Problem
from scorer.sandbox import Item, Sandbox
from scorer.verifier import Kind, Verdict
from scorer.worker import make_sandbox

CHUNK = 256
"""Answers between two moves of the bar."""


def kind_for(settings: Sections, problems: Sequence[Problem]) -> Kind:
    """reasoning-gym's own scorer for its problems, else verifier.kind."""
    if problems[0].meta.get("task"):
        return "task"
    return "math" if settings.verifier.kind == "task" else settings.verifier.kind


def sandbox_of(settings: Sections, kind: Kind) -> Sandbox:
    """The scorer's sandbox with a verifier of this kind."""
    verifier = settings.verifier.model_copy(update={"kind": kind})
    return make_sandbox(settings.model_copy(update={"verifier": verifier}))


def judged(
    sandbox: Sandbox, problems: Sequence[Problem], texts: Sequence[str], progress: Bars, description: str
) -> list[Verdict]:
    """The verdict on each text as an answer to the problem at its place."""
    items = [Item(p.answer, text, p.meta) for p, text in zip(problems, texts, strict=True)]
    task = progress.add_task(description, total=len(items))
    verdicts: list[Verdict] = []
    for start in range(0, len(items), CHUNK):
        verdicts += sandbox.verify(items[start : start + CHUNK])
        progress.update(task, completed=len(verdicts))
    return verdicts
