"""Where prompts come from: a JSONL file, a Hugging Face data set, or reasoning-gym families.

What cannot be used is left out with its line number and reason, and the rest is gone on with.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import generated
from common.errors import DataError
from common.generated import Split
from common.settings import EvalSet, Sections
from common.tasks import Problem
from common.worked import worked_solution

MAX_LINE_BYTES = 4 * 2**20
MAX_ANSWER_CHARS = 4000


@dataclass(frozen=True)
class BadLine:
    number: int
    reason: str


Numbered = tuple[list[tuple[int, Problem]], list[BadLine]]
"""Problems, each with its line number from 1, and the lines that were left out."""


def load(settings: Sections, split: Split, count: int | None = None) -> tuple[list[Problem], list[BadLine]]:
    """`numbered` without the line numbers."""
    good, bad = numbered(settings, split, count)
    return [problem for _, problem in good], bad


def numbered(settings: Sections, split: Split, count: int | None = None) -> Numbered:
    """Problems of one part of a run, at most `count` or else data.limit.

    reasoning-gym: the parts share no question. A file or hub data set: `sft` and `rm` take the first rows of
    data.train; what made this run's own policy or reward model is not trained on again. Raises DataError when nothing
    can be used.
    """
    source, limit = _training_source(settings), count if count is not None else settings.data.limit
    if source.source == "reasoning-gym":
        return list(enumerate(generated.training(settings, split, count), 1)), []
    used = _used_before(settings, split)
    good, bad = _taken(settings, source, None if limit is None else used + limit)
    if len(good) <= used:
        name = "problems" if settings.sft.source == "samples" and settings.sft.problems else "examples"
        raise DataError(
            f"{source.source} has {len(good)} usable lines, and sft.{name} = {settings.sft.taken} and rm.prompts = "
            f"{settings.rm.prompts} take them all before {split}; lower these, or give a longer file"
        )
    return good[used:], bad


def held_out(settings: Sections) -> dict[str, Numbered]:
    """The sets of eval.data by name. Raises DataError for one that has no problem."""
    made = generated.held_out(settings)
    return {
        name: (list(enumerate(made[name], 1)), []) if name in made else _taken(settings, one, settings.eval.problems)
        for name, one in settings.eval.sets.items()
    }


def trained_on(settings: Sections) -> list[Problem]:
    """The rows of data.train, a file or hub data set, that some part of the run takes: cold start, reward model, RL."""
    limit = settings.data.limit
    most = None if limit is None else _used_before(settings, "train") + limit
    return [problem for _, problem in _taken(settings, _training_source(settings), most)[0]]


def _training_source(settings: Sections) -> EvalSet:
    if not settings.data.train:
        raise DataError("data.train is not set: give a JSONL file, hub:NAME, or reasoning-gym with data.families")
    return EvalSet(source=settings.data.train, hub_split=settings.data.hub_split)


def _taken(settings: Sections, source: EvalSet, most: int | None) -> Numbered:
    """The first `most` usable lines, or all."""
    good: list[tuple[int, Problem]] = []
    bad: list[BadLine] = []
    for number, row in _rows(settings, source):
        problem = row if isinstance(row, str) else _problem(row, settings, source)
        if isinstance(problem, str):
            bad.append(BadLine(number, problem))
        else:
            good.append((number, problem))
            if len(good) == most:
                break
    if not good:
        first = "; ".join(f"line {line.number}: {line.reason}" for line in bad[:3]) or "it is empty"
        raise DataError(f"{source.source} has no usable line ({len(bad)} bad): {first}")
    return good, bad


def _used_before(settings: Sections, split: Split) -> int:
    """Usable rows of data.train that made the policy or the reward model which this run starts from."""
    s = settings
    begun = Path(s.model.policy) == s.sft.out and (s.data.solution or s.sft.source == "samples")
    cold_start = s.sft.taken if begun else 0
    reward_model = s.rm.prompts if Path(s.reward_model.model or "") == s.rm.out else 0
    before: dict[Split, int] = {"sft": 0, "rm": cold_start, "train": cold_start + reward_model}
    return before[split]


def _rows(settings: Sections, source: EvalSet) -> Iterable[tuple[int, dict[str, Any] | str]]:
    if source.source.startswith("hub:"):
        # With a limit the rows are taken as they come, and not all the data set's gigabytes first.
        streaming = settings.data.limit is not None
        return _hub_rows(source, source.hub_config or settings.data.hub_config, streaming)
    return file_rows(Path(source.source))


def file_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line number from 1, the object in it or why there is none) of a JSONL file, gzipped or not.

    Lines of more than MAX_LINE_BYTES are skipped in bounded pieces. Raises DataError when it cannot be read.
    """
    if not path.is_file():
        raise DataError(f"there is no data file {path}; data.train takes a JSONL file, hub:NAME or reasoning-gym")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > MAX_LINE_BYTES:
                    yield number, f"longer than {MAX_LINE_BYTES:,} bytes"
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                elif line.strip():
                    yield number, _parsed(line)
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _parsed(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON: {error}"
    return row if isinstance(row, dict) else "not a JSON object"


def _hub_rows(source: EvalSet, config: str | None, streaming: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import datasets
    except ImportError as error:
        raise DataError("hub: data sets need the package datasets: pip install 'hero-rl[hub]'") from error
    name = source.source.removeprefix("hub:")
    try:
        loaded = datasets.load_dataset(name, config, split=source.hub_split, streaming=streaming)
    except Exception as error:  # the hub client raises a dozen unrelated kinds
        raise DataError(
            f"data set {name!r} cannot be had: {type(error).__name__}: {str(error)[:300]}; check name, "
            f"hub_config = {config}, hub_split = {source.hub_split} and the network, or give a JSONL file"
        ) from error
    return enumerate((dict(row) for row in loaded), 1)


def _problem(row: dict[str, Any], settings: Sections, source: EvalSet) -> Problem | str:
    """The problem in a row, or why there is none."""
    fields = source.question or settings.data.question, source.answer or settings.data.answer
    question, answer = (row.get(field) for field in fields)
    for field, value in zip(fields, (question, answer), strict=True):
        if value is None:
            return f"no field {field!r}; it has {', '.join(list(row)[:8])} (settings data.question, data.answer)"
    if not isinstance(question, str) or not question.strip():
        return f"field {fields[0]!r} is empty, or no text"
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return f"field {fields[1]!r} is no text or number"
    gold = str(answer).rpartition("####")[2].strip()
    if not gold or len(gold) > MAX_ANSWER_CHARS:
        return f"field {fields[1]!r} is empty, or over {MAX_ANSWER_CHARS:,} characters"
    solution = row.get(settings.data.solution) if settings.data.solution else None
    if not isinstance(solution, str) or not solution.strip():
        return Problem(question, gold, None, {})
    return Problem(question, gold, worked_solution(solution, gold), {})
