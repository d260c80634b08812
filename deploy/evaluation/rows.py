"""What one model made of one set: `OUT/rows/MODEL/SET.jsonl`, from which every figure can be worked out again.

The first line says what was asked and how long it took, each further one is a problem:

    {"line": 3, "question": "12 + 30 = ?", "gold": "42", "task": null, "prompt_tokens": 14,
     "greedy": {"status": "correct", "extracted": "42", "tokens": 21, "finish": "stop", "text": "... \\\\boxed{42}"},
     "samples": [{..., "vote": 0}, {..., "vote": 1}, {..., "vote": null}]}

vote: 0 for the right answer, equal numbers for equal answers, null for none. A prompt that the model's context cannot
hold has greedy null and no samples.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from common.errors import DataError, RunFolderError
from common.models import identity
from common.settings import Sections
from deploy.evaluation import sets
from deploy.run_folder import write_atomically

TEXT_CHARS = 2000
"""Of each question, and of the end of each completion: the answer is there."""


@dataclass(frozen=True)
class Asked:
    """Everything that the figures of one model on one set depend on, but for the model's weights."""

    set_digest: str
    verifier: str
    unevaluated: bool
    max_chars: int
    system_prompt: str
    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    max_model_len: int
    dtype: str
    seed: int


@dataclass(frozen=True)
class Result:
    """One model on one set."""

    model: str
    set: str
    folder: str
    identity: str
    """Of the weights, as `common.models.identity`."""
    asked: Asked
    seconds: float
    problems: list[dict[str, Any]]


def asked(settings: Sections, one: sets.HeldOut) -> Asked:
    return Asked(
        set_digest=one.about["digest"],
        verifier=one.about["verifier"],
        unevaluated=settings.verifier.unevaluated,
        max_chars=settings.verifier.max_chars,
        system_prompt=settings.data.system_prompt,
        samples=settings.eval.samples,
        temperature=settings.eval.temperature,
        top_p=settings.eval.top_p,
        max_tokens=settings.eval.max_tokens or settings.sampling.max_tokens,
        max_model_len=settings.actor.max_model_len,
        dtype=settings.actor.dtype,
        seed=settings.run.seed,
    )


def right(completion: Mapping[str, Any] | None) -> bool:
    """Of a row's greedy completion or one of its samples; a prompt that was too long has none."""
    return completion is not None and completion["status"] == "correct"


def path(out: Path, model: str, set_name: str) -> Path:
    return out / "rows" / model / f"{set_name}.jsonl"


def write(out: Path, result: Result) -> None:
    """Whole or not there."""
    file = path(out, result.model, result.set)
    file.parent.mkdir(parents=True, exist_ok=True)
    header = dataclasses.asdict(dataclasses.replace(result, problems=[]))
    del header["problems"]
    write_atomically(file, "".join(json.dumps(line) + "\n" for line in [header, *result.problems]))


def read(file: Path) -> Result:
    """Raises DataError for a file that is none of ours."""
    try:
        header, *problems = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        own = Asked(**header["asked"])
        if odd := [row for row in problems if len(row["samples"]) not in (0, own.samples) or "greedy" not in row]:
            raise ValueError(
                f"line {odd[0]['line']} has {len(odd[0]['samples'])} samples, {own.samples} were asked for"
            )
        return Result(**header | {"asked": own, "problems": problems})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{file} holds no results of `hero eval`: {error!r}; remove it, and it is made again"
        ) from error


def present(out: Path, models: Iterable[str], set_names: Collection[str]) -> list[Result]:
    """Those of these results that are there, model by model."""
    files = (path(out, model, one) for model in models for one in set_names)
    return [read(file) for file in files if file.is_file()]


def read_all(out: Path) -> list[Result]:
    """Every result in a folder, oldest first. Raises DataError without any."""
    files = sorted((out / "rows").glob("*/*.jsonl"), key=lambda file: (file.stat().st_mtime_ns, file))
    if not files:
        raise DataError(f"{out} has no results: give the folder that `hero eval --out` filled")
    return [read(file) for file in files]


def missing(settings: Sections, out: Path, models: Mapping[str, Path], console: Console) -> dict[str, list[str]]:
    """By model the sets that are still to be evaluated; what is finished is kept.

    A model that has changed since is evaluated anew. Raises RunFolderError where a set was evaluated with other
    settings: to redo it silently would throw away what may have taken hours.
    """
    held = {name: sets.read(out, name) for name in settings.eval.sets}
    wanted: dict[str, list[str]] = {}
    for model, folder in models.items():
        wanted[model] = []
        weights = identity(model, folder)
        for name, one in held.items():
            file = path(out, model, name)
            if file.is_file():
                found = read(file)
                _refuse_other(file, found.asked, asked(settings, one))
                if found.identity == weights:
                    continue
                console.print(f"{model} has changed since it was evaluated on {name}: once more", highlight=False)
                file.unlink()
            wanted[model].append(name)
    return wanted


def _refuse_other(file: Path, held: Asked, want: Asked) -> None:
    before, now = dataclasses.asdict(held), dataclasses.asdict(want)
    changed = [f"{key} {before[key]!r:.60} is now {now[key]!r:.60}" for key in before if before[key] != now[key]]
    if changed:
        raise RunFolderError(
            f"{file} was made with other settings ({', '.join(changed)}): give another folder, or remove that file"
        )
