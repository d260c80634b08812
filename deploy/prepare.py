"""Prompts of a run, checked once and kept in the run folder: what is bad is listed with line and reason."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from common.errors import DataError
from common.models import local_folder
from common.problems import BadLine, numbered
from common.settings import Sections
from common.tasks import Problem
from deploy.judging import sandbox_of
from deploy.run_folder import write_atomically

if TYPE_CHECKING:
    from learner.render import Renderer
    from scorer.verifier import Kind

_PLAIN_NUMBER = re.compile(r"-?\d{1,15}(\.\d{1,15})?")
_CHUNK = 64


def prompts(settings: Sections, console: Console) -> list[Problem]:
    """The run's usable prompts, from the run folder when a run is resumed. Raises DataError if none is usable."""
    file = settings.run.folder / "prompts.jsonl"
    if file.is_file():
        return [Problem(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
    read_lines, bad = numbered(settings, "train")
    good, more = usable(read_lines, settings, console)
    bad = sorted(bad + more, key=lambda line: line.number)
    if bad:
        write_atomically(
            settings.run.folder / "bad_lines.jsonl", "".join(json.dumps(dataclasses.asdict(b)) + "\n" for b in bad)
        )
        kinds = Counter(line.reason.split(":")[0] for line in bad)
        console.print(f"{len(bad)} of {len(good) + len(bad)} lines cannot be used and are left out:")
        for reason, count in kinds.most_common(5):
            example = next(line for line in bad if line.reason.startswith(reason))
            console.print(f"  {count} x {example.reason[:200]} (e.g. line {example.number})", markup=False)
        console.print(f"  all are listed in {settings.run.folder / 'bad_lines.jsonl'}")
    if not good:
        raise DataError(
            f"{settings.data.train} has no usable line; {len(bad)} bad ones are in "
            f"{settings.run.folder / 'bad_lines.jsonl'}"
        )
    write_atomically(file, "".join(json.dumps(dataclasses.asdict(p) | {"solution": None}) + "\n" for p in good))
    return good


def usable(
    lines: list[tuple[int, Problem]], settings: Sections, console: Console
) -> tuple[list[Problem], list[BadLine]]:
    """Leaves out prompts that are too long and answers that the verifier cannot read."""
    from learner.render import Renderer

    model = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    renderer = Renderer(model, settings.data.system_prompt, settings.model.trust_remote_code)
    limit = settings.data.max_prompt_tokens
    problems = [problem for _, problem in lines]
    reasons: list[str | None] = []
    for problem in problems:
        tokens = len(renderer.prompt_ids(problem.question))
        reasons.append(
            f"prompt too long: {tokens} tokens, data.max_prompt_tokens = {limit}" if tokens > limit else None
        )
    golds = {i: p.answer for i, p in enumerate(problems) if reasons[i] is None}
    for i, reason in unreadable(settings, settings.verifier.kind, golds, console).items():
        reasons[i] = f"answer does not parse: {reason}"
    good = [problem for problem, reason in zip(problems, reasons, strict=True) if reason is None]
    bad = [BadLine(number, reason) for (number, _), reason in zip(lines, reasons, strict=True) if reason is not None]
    return good, bad


def unreadable(settings: Sections, kind: Kind, golds: Mapping[int, str], console: Console) -> dict[int, str]:
    """Why a verifier of this kind can compare no answer with a gold one, for those of which that is so."""
    hard = [place for place, gold in golds.items() if not _PLAIN_NUMBER.fullmatch(gold)]
    if kind == "task" or not hard:
        return {}
    found: dict[int, str] = {}
    with sandbox_of(settings, kind) as sandbox:
        for start in track(range(0, len(hard), _CHUNK), "checking answers", console=console, transient=True):
            chunk = hard[start : start + _CHUNK]
            reasons = sandbox.check_golds([golds[place] for place in chunk])
            found |= {place: reason for place, reason in zip(chunk, reasons, strict=True) if reason}
    return found


def fitting(
    problems: list[Problem], renderer: Renderer, limit: int, console: Console
) -> tuple[list[Problem], list[list[int]]]:
    """Problems whose prompt has at most `limit` tokens, and their token ids; says how many are left out.

    Training prompts are checked by `prompts`; those of a cold start or of a reward model come straight from
    their file, and one that the engine cannot take would end it. Raises DataError when none fits.
    """
    rendered = [(problem, renderer.prompt_ids(problem.question).tolist()) for problem in problems]
    kept = [(problem, ids) for problem, ids in rendered if len(ids) <= limit]
    if not kept:
        raise DataError(f"none of {len(problems)} prompts has data.max_prompt_tokens = {limit} or fewer; raise it")
    if len(kept) < len(problems):
        console.print(
            f"{len(problems) - len(kept)} of {len(problems)} prompts are longer than data.max_prompt_tokens = {limit} "
            "and are left out",
            highlight=False,
        )
    return [problem for problem, _ in kept], [ids for _, ids in kept]
