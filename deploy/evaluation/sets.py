"""The held-out sets of an evaluation: read once, looked at, and kept beside the results: `OUT/sets/NAME.jsonl`.

The first line says what is known of the set, each further one is a problem with its line number in the source. Nothing
that could be asked is left out: what is odd is counted and said, and stays in every denominator.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from common.errors import DataError, RunFolderError
from common.problems import BadLine, held_out, trained_on
from common.settings import Sections
from common.tasks import Problem
from common.untrusted import printable
from deploy.judging import kind_for
from deploy.prepare import unreadable
from deploy.run_folder import write_atomically

_DASHES = str.maketrans("\u2010\u2011\u2012\u2013\u2212", "-----")
_HYPHEN = re.compile(r"-(?=[a-z]{2})|(?<=[a-z]{2})-")


@dataclass(frozen=True)
class HeldOut:
    """One set as it is kept."""

    name: str
    about: dict[str, Any]
    """The first line: source, digest, problems, left_out, repeated, in_training (None: unknown), verifier, ..."""
    lines: list[int]
    problems: list[Problem]


def prepare(settings: Sections, out: Path, console: Console) -> None:
    """Reads the sets of eval.data into `out` and says what is odd about them.

    Raises DataError for an empty set, RunFolderError where `out` holds another one of that name, or foreign files.
    """
    sets = held_out(settings)
    _open(out)
    trained = _trained(settings, console)
    for name, (numbered, bad) in sets.items():
        problems = [problem for _, problem in numbered]
        rows = [{"line": line, "question": p.question, "answer": p.answer, "meta": p.meta} for line, p in numbered]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        kind = kind_for(settings, problems)
        about = {
            "source": settings.eval.sets[name].source,
            "digest": hashlib.sha256(text.encode()).hexdigest()[:16],
            "problems": len(problems),
            "left_out": len(bad),
            "repeated": len(problems) - len(set(map(key, problems))),
            "in_training": None if trained is None else sum(key(p) in trained for p in problems),
            "verifier": kind,
            "unreadable_golds": len(unreadable(settings, kind, dict(enumerate(p.answer for p in problems)), console)),
        }
        for line in _told(about, bad):
            console.print(f"{name}: {line}", highlight=False, markup=False, soft_wrap=True)
        file = path(out, name)
        if file.is_file() and read(out, name).about["digest"] != about["digest"]:
            raise RunFolderError(
                f"{file} holds other problems under this name: name the set otherwise (NAME=SOURCE), or give another "
                "folder"
            )
        write_atomically(file, json.dumps(about) + "\n" + text)


def _open(out: Path) -> None:
    folder = out / "sets"
    if out.is_dir() and any(out.iterdir()) and not folder.is_dir():
        raise RunFolderError(f"{out} holds files that are no evaluation of ours; give a new or empty folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{out} cannot be written: {error.strerror}; give a folder that you may write") from error


def path(out: Path, name: str) -> Path:
    return out / "sets" / f"{name}.jsonl"


def read(out: Path, name: str) -> HeldOut:
    """A set that `prepare` has kept."""
    first, *rows = map(json.loads, path(out, name).read_text().splitlines())
    problems = [Problem(row["question"], row["answer"], None, row["meta"]) for row in rows]
    return HeldOut(name, first, [row["line"] for row in rows], problems)


def key(problem: Problem) -> str:
    """What two questions share that are the same but for their spelling: letters, digits and arithmetic's signs.

    Without the signs 12 + 30 and 12 - 30 would be one. A generated question is compared letter by letter.
    """
    if problem.meta.get("task"):
        return problem.question
    text = unicodedata.normalize("NFKC", problem.question).casefold().translate(_DASHES)
    return "".join(c for c in _HYPHEN.sub("", text) if c.isalnum() or c in "+-*/^=<>")


def _trained(settings: Sections, console: Console) -> set[str] | None:
    """Keys of the questions that the run of these settings trains on; None where they are not to be had cheaply."""
    train, prompts = settings.data.train, settings.run.folder / "prompts.jsonl"
    unknown = ""
    if train == "reasoning-gym":
        if prompts.is_file():
            lines = prompts.read_text(encoding="utf-8").splitlines()
            return {key(Problem(**json.loads(line))) for line in lines}
        unknown = f"{prompts} is not here"
    elif train.startswith("hub:") and settings.data.limit is None:
        unknown = f"{train} would be read as a whole, without data.limit"
    elif train:
        try:
            return {key(problem) for problem in trained_on(settings)}
        except DataError as error:
            unknown = str(error)
    if unknown:
        console.print(f"not compared with the training data: {unknown}", highlight=False, markup=False, soft_wrap=True)
    return None


def _told(about: Mapping[str, Any], bad: Sequence[BadLine]) -> Iterator[str]:
    """What a reader of the figures should know."""
    if bad:
        first = f"line {bad[0].number}: {printable(bad[0].reason)[:300]}"
        yield f"{len(bad)} lines are no problems and left out, the first is {first}"
    if about["repeated"]:
        yield f"{about['repeated']} questions repeat another one; each counts, so the intervals are too narrow"
    if about["unreadable_golds"]:
        yield f"{about['unreadable_golds']} gold answers cannot be read by the verifier: nothing is right there"
    if about["in_training"]:
        yield (
            f"{about['in_training']} of {about['problems']} questions are in data.train as well (same letters, digits "
            "and signs); they are evaluated and counted like the others"
        )
