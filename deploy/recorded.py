"""The groups of a run from its reward log, and their rewards under other settings: no text is judged again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from common.schema import UNSCORED
from common.settings import RewardSettings
from common.sigma import Sigma
from learner.advantage import Group
from scorer.rewards import reward_group

LOG = "rewards/rewards.jsonl"


def parts(log: Path) -> list[Path]:
    """The files of a log that is rotated, oldest first: log.7 to log.1, then itself."""
    older = [file for file in log.parent.glob(f"{log.name}.*") if file.suffix[1:].isdecimal()]
    older.sort(key=lambda file: int(file.suffix[1:]), reverse=True)
    return [*older, log] if log.is_file() else older


def groups(run: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's reward log, oldest first. Raises DataError without a log, and for a line that is none."""
    if not (files := parts(run / LOG)):
        raise DataError(f"{run} has no reward log ({LOG}): give the folder of a run")
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith("\n"):
                    return  # a run that goes on is in the middle of this one
                try:
                    group = json.loads(line)
                    _ = group["completions"][0]["status"], group["question"], group["gold"], group["outcome"]
                except (ValueError, TypeError, KeyError, IndexError) as error:
                    raise DataError(f"{file}:{number} is no line of a reward log: {error!r}") from error
                yield group


def batches(run: Path, size: int) -> Iterator[list[dict[str, Any]]]:
    """The groups of a run that were trained on together, `size` of a step; oldest first, without the dropped ones."""
    batch: list[dict[str, Any]] = []
    for group in groups(run):
        if group["outcome"] not in ("trained", "shadow"):
            continue
        if batch and (len(batch) == size or group["step"] != batch[0]["step"]):  # `size`: a step may be done again
            yield batch
            batch = []
        batch.append(group)
    if batch:
        yield batch


def recomputed(group: dict[str, Any], reward: RewardSettings) -> dict[str, Any]:
    """The group as a row of `hero score`, its recorded verdicts and scores under `reward`.

    sigma_bar and sigma_dev are the recorded ones, which the run's scorers shared. Raises DataError where a mode needs
    reward-model scores and the run recorded none.
    """
    made = group["completions"]
    recorded = [c["rm_score"] for c in made]
    given = [c["status"] for c in made]
    judged = all(score is not None or status in UNSCORED for score, status in zip(recorded, given, strict=True))
    scores = np.array([np.nan if s is None else s for s in recorded]) if judged else None
    bar, dev = group["sigma_bar"], group.get("sigma_dev")
    if reward.weighting == "scale_free" and bar is not None and dev is None:
        raise DataError(f"group {group['id']} was recorded without sigma_dev: reward.weighting = scale_free needs it")
    sigma = None if bar is None else Sigma(bar, dev or 0.0)
    try:
        statuses, shaped = reward_group(reward.mode, given, scores, sigma=sigma, options=reward)
    except ValueError as error:
        raise DataError(f"group {group['id']} cannot be rewarded so: {error}") from error
    return {
        "id": group["id"],
        "step": group["step"],
        "outcome": group["outcome"],
        "question": group["question"],
        "gold": group["gold"],
        "completions": [c["text"] for c in made],
        "statuses": statuses,
        "rules": [c["rule"] for c in made],
        "extracted": [c["extracted"] for c in made],
        "reward_model": group["reward_model"],
        "rm_scores": None if scores is None else recorded,
        "r_hat": shaped.r_hat.tolist(),
        "rewards": shaped.rewards.tolist(),
        "weight": shaped.weight,
        "sigma_u": shaped.sigma_u,
        "sigma_bar": shaped.sigma_bar,
        "sigma_dev": shaped.sigma_dev,
    }


def graded(row: Mapping[str, Any]) -> Group:
    """What of a row of `hero score` its advantages depend on."""
    scores = row["rm_scores"]
    return Group(
        correct=np.array([status == "correct" for status in row["statuses"]]),
        rm_scores=None if scores is None else np.array([np.nan if s is None else s for s in scores]),
        r_hat=np.array(row["r_hat"]),
        weight=row["weight"],
    )
