"""`hero score`: rewards for the rows of a file, without a run.

Row in:  {"question": "12 + 30 = ?", "gold": "42", "completions": ["\\\\boxed{42}", "\\\\boxed{43}"]}
Row out: the same fields, with "statuses", "rules", "extracted", "reward_model", "rm_scores", "r_hat", "rewards",
         "weight", "sigma_u", "sigma_bar" and "sigma_dev".

Every input row gives one output row, in order. A row that cannot be scored keeps its fields and gets
"error": the reason; one that is no JSON object becomes {"line": its number, "error": the reason}. Blank
lines are no rows. "meta" is optional and goes to verifier `task`.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from common.errors import DataError, HeroError
from common.sigma import Sigma, next_sigma
from scorer.reward_models.protocol import RewardModel, Sample
from scorer.rewards import NEEDS_REWARD_MODEL, Mode, Options, reward_group
from scorer.sandbox import Item, Sandbox
from scorer.verifier import Verdict

if TYPE_CHECKING:
    from scorer.hero import Floats

CHUNK_ROWS = 32
"""Rows that are verified and scored together."""
MAX_LINE_BYTES = 64 * 2**20


class FileOptions(Options, Protocol):
    """The [reward] section of the settings."""

    @property
    def mode(self) -> Mode: ...
    @property
    def sigma_momentum(self) -> float: ...


@dataclass
class Summary:
    rows: int = 0
    errors: dict[int, str] = field(default_factory=dict)
    """Reason by line number, of the rows that were not scored."""
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def exit_code(self) -> int:
        """0 when every row was scored, else 1; a file that cannot be read at all raises DataError."""
        return 1 if self.errors else 0


@dataclass(eq=False)
class _Row:
    line: int
    fields: dict[str, Any]
    error: str | None = None

    @property
    def completions(self) -> list[str]:
        completions: list[str] = self.fields["completions"]
        return completions

    @property
    def gold(self) -> str:
        return str(self.fields["gold"])


def score_file(
    source: Path,
    out: IO[str],
    *,
    options: FileOptions,
    sandbox: Sandbox,
    reward_model: RewardModel | None,
    progress: bool = True,
) -> Summary:
    """Scores the rows of `source` (JSONL, gzipped or not) into `out`, a chunk at a time.

    sigma_bar and sigma_dev run over the rows in order, each weighted at those of the rows before it. The bar goes to
    standard error. Raises DataError for a file that cannot be read or has no rows, ChildFailed when no
    verification child can be started, ValueError when the mode lacks its reward model.
    """
    if options.mode in NEEDS_REWARD_MODEL and reward_model is None:
        raise ValueError(f"reward mode {options.mode!r} needs a reward model")
    model = reward_model if options.mode in NEEDS_REWARD_MODEL else None
    summary, sigma = Summary(), None
    with _rows(source, progress) as rows:
        while chunk := list(itertools.islice(rows, CHUNK_ROWS)):
            for row, verdicts, scores in _judged(chunk, sandbox, model):
                if row.error is None:
                    sigma = _reward(row, verdicts, scores, sigma, options)
                    row.fields["reward_model"] = None if model is None else model.name
                    summary.statuses.update(row.fields["statuses"])
                if row.error is not None:
                    row.fields["error"] = row.error
                    summary.errors[row.line] = row.error
                summary.rows += 1
                out.write(json.dumps(row.fields) + "\n")
            out.flush()
    if summary.rows == 0:
        raise DataError(f"{source} has no rows; each is a line {{'question': ..., 'gold': ..., 'completions': [...]}}")
    return summary


@contextmanager
def whole_or_nothing(out: Path) -> Iterator[IO[str]]:
    """A text file that takes its name only when the block ends well."""
    part = out.with_name(out.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as file:
            yield file
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def _judged(
    chunk: Sequence[_Row], sandbox: Sandbox, model: RewardModel | None
) -> Iterator[tuple[_Row, list[Verdict], Floats | None]]:
    """The rows of a chunk with what verifier and reward model say; errors are set on the row."""
    good = [row for row in chunk if row.error is None]
    if sandbox.verifier != "task":
        for row, reason in zip(good, sandbox.check_golds([row.gold for row in good]), strict=True):
            row.error = reason
        good = [row for row in good if row.error is None]
    items = [Item(row.gold, text, row.fields.get("meta") or {}) for row in good for text in row.completions]
    verdicts = iter(sandbox.verify(items))
    scores = iter([None] * len(good) if model is None else _scores(good, model))
    for row in chunk:
        if row in good:
            own = list(itertools.islice(verdicts, len(row.completions)))
            yield row, own, next(scores)
        else:
            yield row, [], None


def _scores(rows: Sequence[_Row], model: RewardModel) -> list[Floats | None]:
    """Scores by row, all rows together; should the model refuse one, each alone, and that one gets an error."""
    samples = [Sample(row.fields["question"], text, row.gold) for row in rows for text in row.completions]
    try:
        scores = model.score(samples)
    except HeroError as error:
        if len(rows) > 1:
            return [scores for row in rows for scores in _scores([row], model)]
        rows[0].error = str(error)
        return [None]
    ends = np.cumsum([len(row.completions) for row in rows])
    return list(np.split(scores, ends[:-1]))


def _reward(
    row: _Row, verdicts: Sequence[Verdict], scores: Floats | None, sigma: Sigma | None, options: FileOptions
) -> Sigma | None:
    """Adds the rewards to the row; returns the running mean and deviation after it."""
    given = [verdict.status for verdict in verdicts]
    statuses, shaped = reward_group(options.mode, given, scores, sigma=sigma, options=options)
    row.fields |= {
        "statuses": statuses,
        "rules": [verdict.rule or None for verdict in verdicts],
        "extracted": [verdict.extracted for verdict in verdicts],
        "rm_scores": None if scores is None else [float(s) if np.isfinite(s) else None for s in scores],
        "r_hat": shaped.r_hat.tolist(),
        "rewards": shaped.rewards.tolist(),
        "weight": shaped.weight,
        "sigma_u": shaped.sigma_u,
        "sigma_bar": shaped.sigma_bar,
        "sigma_dev": shaped.sigma_dev,
    }
    return next_sigma(sigma, shaped.sigma_u, options.sigma_momentum)


@contextmanager
def _rows(source: Path, show: bool) -> Iterator[Iterator[_Row]]:
    """The rows of a file, read as they are asked for, under a bar over its bytes."""
    from common.progress import Bars

    try:
        size = source.stat().st_size
        raw = source.open("rb")
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}; give a JSONL file, gzipped or not") from error
    with raw, Bars(disable=not show) as bar:
        task = bar.add_task(source.name, total=size)

        def rows() -> Iterator[_Row]:
            number = 0
            try:
                packed = raw.read(2) == b"\x1f\x8b"
                raw.seek(0)
                lines = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw
                while line := lines.readline(MAX_LINE_BYTES):
                    number += 1
                    complete = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                    row = _parse(number, line) if complete else _Row(number, {"line": number}, _TOO_LONG)
                    while not complete:  # the rest of it, in bounded pieces
                        line = lines.readline(MAX_LINE_BYTES)
                        complete = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                    if line.strip() or row.error == _TOO_LONG:
                        yield row
                    bar.update(task, completed=raw.tell())
            except (OSError, EOFError, zlib.error) as error:  # gzip's own errors among them
                raise DataError(f"{source} is damaged after line {number}: {error}; copy it again") from error

        yield rows()


_TOO_LONG = f"the line has more than {MAX_LINE_BYTES} bytes"


def _parse(number: int, line: bytes) -> _Row:
    try:
        fields = json.loads(line.decode(), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        return _Row(number, {"line": number}, f"not JSON: {error}")
    if not isinstance(fields, dict):
        return _Row(number, {"line": number}, f"not a JSON object but {type(fields).__name__}")
    return _Row(number, fields, _problem(fields))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if np.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number


def _problem(fields: dict[str, Any]) -> str | None:
    """What keeps a row from being scored, or None."""
    missing = [name for name in ("question", "gold", "completions") if name not in fields]
    if missing:
        return f"lacks the field {', '.join(missing)}"
    if not isinstance(fields["question"], str):
        return f"question must be text, not {type(fields['question']).__name__}"
    gold = fields["gold"]
    if isinstance(gold, bool) or not isinstance(gold, str | int | float) or not str(gold).strip():
        return f"gold must be a text or number that is not empty, not {gold!r:.80}"
    completions = fields["completions"]
    if not isinstance(completions, list) or not completions or not all(isinstance(c, str) for c in completions):
        return f"completions must be a list of one or more texts, not {completions!r:.80}"
    meta = fields.get("meta") or {}
    if not isinstance(meta, dict) or not all(isinstance(value, str) for value in meta.values()):
        return "meta must be an object of texts"
    return None
