"""The reward log stays within its size, and every reward in it can be derived again."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from common.schema import Scored
from common.scores import recorded
from common.settings import RewardSettings
from common.sigma import Sigma
from learner.advantage import advantages
from learner.reward_log import FILES, RewardLog
from scorer.rewards import settle, shape
from tests import make


def lines(folder: Path) -> list[dict]:
    files = sorted(folder.glob("rewards.jsonl*"), reverse=True)
    return [json.loads(line) for file in files for line in file.open(encoding="utf-8")]


def group(id: int, mode: str, scores: list[float] | None, sigma: Sigma | None = None, text: str = "") -> Scored:
    """As a scorer makes it: shaped from verdicts and raw scores."""
    verdicts = ["correct", "wrong", "correct", "no_answer"]
    raw = None if scores is None else recorded(np.array(scores))
    statuses, judged = settle(verdicts, None if scores is None else np.array(scores))
    shaped = shape(mode, [s == "correct" for s in statuses], judged, sigma=sigma, options=RewardSettings())
    made = make.scored(make.rollout(make.ticket(id=id, completions=4, question=text or "1 + 1 = ?")))
    return dataclasses.replace(
        made, mode=mode, statuses=statuses, rm_scores=raw, r_hat=shaped.r_hat, weight=shaped.weight,
        sigma_u=shaped.sigma_u, sigma_bar=shaped.sigma_bar, sigma_dev=shaped.sigma_dev,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "scores"),
    [
        ("hero", [2.0, -1.0, 0.5, 3.0]),
        ("hero", [2.0, float("nan"), 0.5, 3.0]),
        ("hero", [float("nan")] * 4),
        ("hero", [float("inf"), 1.0, float("-inf"), float("nan")]),
        ("rm", [2.0, -1.0, 0.5, 3.0]),
        ("blend", [2.0, -1.0, float("nan"), 3.0]),
        ("verifier", None),
    ],
)
def test_any_reward_can_be_derived_from_its_line(tmp_path: Path, mode: str, scores: list[float] | None) -> None:
    # Given a group that was scored, trained on, and logged
    written = group(7, mode, scores, Sigma(0.7, 0.3))
    gains = advantages(written.r_hat, written.weight, "centered")
    log = RewardLog(tmp_path, limit_mb=1)
    log.write(written, "trained", 3, gains, gated=True)
    log.close()

    # When somebody reads nothing but the line
    [line] = lines(tmp_path)
    statuses = [c["status"] for c in line["completions"]]
    raw = [float("nan") if c["rm_score"] is None else c["rm_score"] for c in line["completions"]]
    again_statuses, judged = settle(statuses, None if mode == "verifier" else np.array(raw))
    shaped = shape(
        line["mode"],
        [s == "correct" for s in again_statuses],
        judged,
        sigma=None if line["sigma_bar"] is None else Sigma(line["sigma_bar"], line["sigma_dev"]),
        options=RewardSettings(),
    )

    # Then the same figures come out
    assert again_statuses == statuses
    assert shaped.weight == line["weight"] and shaped.sigma_u == line["sigma_u"]
    assert list(shaped.rewards) == [c["reward"] for c in line["completions"]] == list(written.rewards)
    assert [c["advantage"] for c in line["completions"]] == list(gains)
    assert (line["id"], line["outcome"], line["step"], line["gated"]) == (7, "trained", 3, True)


def test_the_log_is_rotated_within_its_bound(tmp_path: Path) -> None:
    log = RewardLog(tmp_path, limit_mb=1)
    for id in range(400):
        log.write(group(id, "verifier", None, text="q" * 8000), "dropped: stale", 1)
    log.close()

    files = list(tmp_path.glob("rewards.jsonl*"))
    kept = [line["id"] for line in lines(tmp_path)]

    assert len(files) == FILES
    assert sum(file.stat().st_size for file in files) <= 2**20
    assert kept == list(range(400 - len(kept), 400)), "the newest lines, whole and in order"
    assert len(kept) > 80


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for id in range(2):
        log = RewardLog(tmp_path, limit_mb=1)
        log.write(group(id, "verifier", None), "trained", id)
        log.close()
    assert [line["id"] for line in lines(tmp_path)] == [0, 1]


def test_hostile_text_stays_on_its_line(tmp_path: Path) -> None:
    nasty = 'a\n"b"\r\x00\x1b[31m\u2028\u0085{}\t%s %d'
    log = RewardLog(tmp_path, limit_mb=1)
    log.write(group(0, "verifier", None, text=nasty), "trained", 1)
    log.close()
    raw = (tmp_path / "rewards.jsonl").read_bytes()
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["question"] == nasty
