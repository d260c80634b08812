"""`hero score`: rewards for the rows of a file, without a run.

Row in:  {"question": "12 + 30 = ?", "gold": "42", "completions": ["\\\\boxed{42}", "\\\\boxed{43}"]}
Row out: the same fields, with "statuses", "rules", "extracted", "reward_model", "rm_scores", "r_hat", "rewards",
         "weight", "sigma_u", "sigma_bar" and "sigma_dev".

Every input row gives one output row, in order. A row that cannot be scored keeps its fields and gets
"error": the reason; one that is no JSON object becomes {"line": its number, "error": the reason}. Blank
lines are no rows. "meta" is optional and goes to verifier `task`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np

from common.errors import DataError, HeroError
from common.sigma import Sigma, next_sigma
from scorer.reward_models.protocol import RewardModel, Sample
from scorer.rewards import NEEDS_REWARD_MODEL, Mode, Options, reward_group
from scorer.sandbox import Item, Sandbox
from scorer.score_rows import Row, rows_of
from scorer.verifier import Verdict

if TYPE_CHECKING:
    from scorer.hero import Floats

CHUNK_ROWS = 32
"""Rows that are verified and scored together."""


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
    with rows_of(source, progress) as rows:
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
    chunk: Sequence[Row], sandbox: Sandbox, model: RewardModel | None
) -> Iterator[tuple[Row, list[Verdict], Floats | None]]:
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


def _scores(rows: Sequence[Row], model: RewardModel) -> list[Floats | None]:
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
    row: Row, verdicts: Sequence[Verdict], scores: Floats | None, sigma: Sigma | None, options: FileOptions
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
