"""Where prompts come from: a JSONL file, a Hugging Face data set, or reasoning-gym families.

What cannot be used is left out with its line number and reason, and training goes on with the rest.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import DataError
from common.settings import Sections
from common.tasks import Problem, generate
from common.worked import worked_solution

MAX_LINE_BYTES = 4 * 2**20
MAX_ANSWER_CHARS = 4000
Split = Literal["eval", "sft", "rm", "train"]
_SEED_OFFSETS: dict[Split, int] = {"eval": 1_000_003, "sft": 2_000_003, "rm": 3_000_017, "train": 4_000_037}
_EVAL_SEED = 20_240_229  # the held-out problems are the same whatever run.seed is


@dataclass(frozen=True)
class BadLine:
    number: int
    reason: str


def load(settings: Sections, split: Split, count: int | None = None) -> tuple[list[Problem], list[BadLine]]:
    """`numbered` without the line numbers."""
    good, bad = numbered(settings, split, count)
    return [problem for _, problem in good], bad


def numbered(
    settings: Sections, split: Split, count: int | None = None
) -> tuple[list[tuple[int, Problem]], list[BadLine]]:
    """Problems of one part of a run, each with its line number from 1, and the lines that were left out.

    reasoning-gym: splits share no question; `eval` is the same for every run.seed. A file or hub data set:
    `eval` reads eval.data, all others data.train, where `sft` and `rm` take the first rows: what made this run's
    own policy or reward model is not trained on again. Raises DataError when nothing can be used.
    """
    source = settings.eval.data if split == "eval" else settings.data.train
    if not source:
        raise DataError("data.train is not set: give a JSONL file, hub:NAME, or reasoning-gym with data.families")
    if source == "reasoning-gym":
        return list(enumerate(_generated(settings, split, count), 1)), []
    hub_split = settings.eval.hub_split if split == "eval" else settings.data.hub_split
    hub = source.startswith("hub:")
    rows = _hub_rows(settings, source.removeprefix("hub:"), hub_split) if hub else file_rows(Path(source))
    used = _used_before(settings, split)
    usable = 0
    good: list[tuple[int, Problem]] = []
    bad: list[BadLine] = []
    limit = count if count is not None else settings.data.limit
    for number, row in rows:
        problem = row if isinstance(row, str) else _problem(row, settings)
        if isinstance(problem, str):
            bad.append(BadLine(number, problem))
        elif (usable := usable + 1) > used:
            good.append((number, problem))
            if limit is not None and len(good) >= limit:
                break
    if usable and not good:
        name = "problems" if settings.sft.source == "samples" and settings.sft.problems else "examples"
        raise DataError(
            f"{source} has {usable} usable lines, and sft.{name} = {settings.sft.taken} and rm.prompts = "
            f"{settings.rm.prompts} take them all before {split}; lower these, or give a longer file"
        )
    if not good:
        first = "; ".join(f"line {line.number}: {line.reason}" for line in bad[:3]) or "it is empty"
        raise DataError(f"{source} has no usable line ({len(bad)} bad): {first}")
    return good, bad


def _used_before(settings: Sections, split: Split) -> int:
    """Usable rows of data.train that made the policy or the reward model which this run starts from."""
    s = settings
    begun = Path(s.model.policy) == s.sft.out and (s.data.solution or s.sft.source == "samples")
    cold_start = s.sft.taken if begun else 0
    reward_model = s.rm.prompts if Path(s.reward_model.model or "") == s.rm.out else 0
    before: dict[Split, int] = {"eval": 0, "sft": 0, "rm": cold_start, "train": cold_start + reward_model}
    return before[split]


def _generated(settings: Sections, split: Split, count: int | None) -> list[Problem]:
    """Generates the splits before this one too, since each leaves out what those before it have."""
    s = settings
    sizes: dict[Split, int] = {
        "eval": s.eval.problems,
        "sft": s.sft.taken,
        "rm": s.rm.prompts,
        "train": s.data.limit or s.run.steps * s.learner.groups_per_step,
    }
    seen: set[str] = set()
    for name, size in sizes.items():
        seed = _EVAL_SEED if name == "eval" else s.run.seed + _SEED_OFFSETS[name]
        problems = generate(s.data.families, (count or size) if name == split else size, seed, exclude=seen)
        if name == split:
            return problems
        seen |= {problem.question for problem in problems}
    raise AssertionError(split)


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


def _hub_rows(settings: Sections, name: str, split: str) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        import datasets
    except ImportError as error:
        raise DataError("hub: data sets need the package datasets: pip install 'hero-rl[hub]'") from error
    try:
        # With a limit the rows are taken as they come, and not all the data set's gigabytes first.
        streaming = settings.data.limit is not None
        loaded = datasets.load_dataset(name, settings.data.hub_config, split=split, streaming=streaming)
    except Exception as error:  # the hub client raises a dozen unrelated kinds
        raise DataError(
            f"data set {name!r} cannot be had: {type(error).__name__}: {str(error)[:300]}; check name, "
            "data.hub_config, data.hub_split, eval.hub_split and the network, or give a JSONL file"
        ) from error
    return enumerate((dict(row) for row in loaded), 1)


def _problem(row: dict[str, Any], settings: Sections) -> Problem | str:
    """The problem in a row, or why there is none."""
    data = settings.data
    question, answer = row.get(data.question), row.get(data.answer)
    for field, value in ((data.question, question), (data.answer, answer)):
        if value is None:
            return f"no field {field!r}; it has {', '.join(list(row)[:8])} (settings data.question, data.answer)"
    if not isinstance(question, str) or not question.strip():
        return f"field {data.question!r} is empty, or no text"
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return f"field {data.answer!r} is no text or number"
    gold = str(answer).rpartition("####")[2].strip()
    if not gold or len(gold) > MAX_ANSWER_CHARS:
        return f"field {data.answer!r} is empty, or over {MAX_ANSWER_CHARS:,} characters"
    solution = row.get(data.solution) if data.solution else None
    if not isinstance(solution, str) or not solution.strip():
        return Problem(question, gold, None, {})
    return Problem(question, gold, worked_solution(solution, gold), {})
