"""Training and held-out data: the first rows are there, parse, fit and have answers that the verifier reads."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator

from rich.console import Console

from common import problems
from common.errors import DataError, HeroError
from common.problems import BadLine
from common.settings import Sections
from deploy import prepare
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, skipped, warning
from deploy.doctor.shapes import policy_folder

ROWS = 20
"""Of each set."""
REMEDY = (
    "name a file or data set with a question and an answer in each row, and their fields, in [data] or [eval]; "
    "raise data.max_prompt_tokens where prompts are too long"
)


def data(case: Case) -> Iterator[Finding]:
    settings = case.settings
    if "learner" not in case.roles:
        yield skipped("data", "the learner alone reads it")
        return
    if not settings.data.train and not case.configured:
        yield skipped("data", "data.train is not set: a run needs a file of settings")
        return
    few = first_rows(settings)
    yield from training(case, few)
    for name in settings.eval.sets:
        yield from held_out(few, name)


def first_rows(settings: Sections) -> Sections:
    """These settings for the first rows alone; with a limit a hub's data set comes as a stream."""
    update = {
        "data": settings.data.model_copy(update={"limit": ROWS}),
        "eval": settings.eval.model_copy(update={"problems": ROWS}),
    }
    return settings.model_copy(update=update)


def training(case: Case, few: Sections) -> Iterator[Finding]:
    check = "data.train"
    try:
        lines, bad = problems.numbered(few, "train")
    except DataError as problem:
        yield error(check, str(problem), REMEDY)
        return
    try:
        model = few.model.model_copy(update={"policy": str(policy_folder(case)), "trust_remote_code": False})
        quiet = Console(file=io.StringIO())
        good, more = prepare.usable(lines, few.model_copy(update={"model": model}), quiet)
    except HeroError as problem:
        yield judged(check, few.data.train, len(lines), bad)
        yield skipped("data.prompts", f"lengths and answers were not looked at: {problem}")
        return
    yield judged(check, few.data.train, len(good), bad + more)


def held_out(few: Sections, name: str) -> Iterator[Finding]:
    """One set alone, so that one that cannot be had hides no other."""
    check = f"eval.data.{name}"
    alone = few.eval.model_copy(update={"data": {name: few.eval.sets[name].model_dump()}})
    try:
        [(lines, bad)] = problems.held_out(few.model_copy(update={"eval": alone})).values()
    except DataError as problem:
        yield error(check, str(problem), REMEDY)
        return
    yield judged(check, few.eval.sets[name].source, len(lines), bad)


def judged(check: str, source: str, good: int, bad: list[BadLine]) -> Finding:
    """Of the first rows; a run leaves bad ones out and counts them."""
    if not bad:
        return ok(check, f"{source}: the first {good} rows can be used")
    reasons = Counter(line.reason.split(":")[0] for line in bad)
    kinds = ", ".join(f"{count} x {reason[:80]}" for reason, count in reasons.most_common(3))
    first = min(bad, key=lambda line: line.number)
    found = f"{source}: {len(bad)} of the first {good + len(bad)} rows cannot be used ({kinds}); "
    found += f"line {first.number}: {first.reason[:200]}"
    if not good:
        return error(check, found, REMEDY)
    return warning(check, found, "a run leaves them out and lists them in bad_lines.jsonl; see [data] for its fields")
