"""A recorded run under other settings: the same numbers under its own, and what changes under others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import DataError
from common.settings import RewardSettings, Sections
from common.sigma import Sigma
from deploy import cli
from deploy.recorded import batches, groups, recomputed
from deploy.rescore import changed
from learner.advantage import advantages, batch_advantages
from learner.groups import graded
from learner.reliability import Gate
from learner.reward_log import RewardLog
from scorer.rewards import Mode, shape
from tests import make

SCORES = [2.0, -1.0, float("nan"), 3.0]
STATUSES = ["correct", "wrong", "context_overflow", "correct"]


def recorded(mode: Mode = "hero", n: int = 6) -> list[Any]:
    """Scored groups as a run with the default settings has them; the last is all wrong."""
    found = []
    for id in range(n):
        statuses = STATUSES if id < n - 1 else ["wrong", "wrong", "context_overflow", "no_answer"]
        settled = np.array([2.0 + id, -1.0, -1.0, 3.0])
        correct = [status == "correct" for status in statuses]
        made = shape(mode, correct, settled, sigma=Sigma(1.0 + 0.1 * id), options=RewardSettings())
        group = make.scored(make.rollout(make.ticket(id=id, completions=4)))
        scores = np.array([2.0 + id, *SCORES[1:]])
        numbers = {"r_hat": made.r_hat, "weight": made.weight, "sigma_u": made.sigma_u, "sigma_bar": made.sigma_bar}
        numbers["sigma_dev"] = made.sigma_dev
        found.append(dataclasses.replace(group, mode=mode, statuses=statuses, rm_scores=scores, **numbers))
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "settings.json").write_text(json.dumps(Sections().model_dump(mode="json")))
    log = RewardLog(tmp_path / "rewards", limit_mb=1)
    for group in recorded():
        log.write(group, "trained", 1, advantages(group.r_hat, group.weight, "centered"))
    log.close()
    return tmp_path


def test_its_own_settings_give_the_recorded_numbers_again(run: Path) -> None:
    for group in groups(run):
        row = recomputed(group, RewardSettings())
        assert row["rewards"] == pytest.approx([c["reward"] for c in group["completions"]])
        assert row["r_hat"] == pytest.approx([c["r_hat"] for c in group["completions"]])
        gains = advantages(row["r_hat"], row["weight"], "centered")
        assert gains == pytest.approx([c["advantage"] for c in group["completions"]])


def test_other_settings_give_theirs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["score", "--from-run", str(run), "--rewards", "verifier"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["id"] for row in rows] == list(range(6))
    assert rows[0]["rewards"] == [1, 0, 0, 1] and rows[5]["rewards"] == [0, 0, 0, 0]
    assert rows[0]["rm_scores"] == [2.0, -1.0, None, 3.0]
    assert cli.main(["score", "--from-run", str(run), "--explain", "1"]) == 0
    assert "centered" in capsys.readouterr().out


def test_compare_shows_what_changes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", str(run), "--rewards", "verifier"]) == 0
    shown = capsys.readouterr().err
    assert "6 groups, 24 completions" in shown and "mean |advantage|, all wrong groups" in shown
    line = next(line for line in shown.splitlines() if "all wrong groups" in line)
    assert float(line.split("│")[2]) > 0.05 and float(line.split("│")[3]) == 0.0, "0/1 teaches nothing there"
    assert (run / "compare.png").read_bytes().startswith(b"\x89PNG")


SEPARATE = {"advantage": "gdpo", "rm_weight": 0.5, "min_rm_auroc": 0.6, "groups_per_step": 2}


@pytest.fixture
def apart(tmp_path: Path) -> tuple[Path, Sections, list[float]]:
    """A run with separate channels and a gate that closes, its settings, its advantages: 3 steps of 2, one dropped."""
    settings = Sections.model_validate({"learner": SEPARATE})
    log, gate, gains = RewardLog(tmp_path / "rewards", limit_mb=1), Gate(0.6), []
    made = recorded()
    made[0] = dataclasses.replace(made[0], statuses=["wrong", "correct", "context_overflow", "wrong"])
    for step in (1, 2, 3):
        batch = made[2 * step - 2 : 2 * step]
        known = [graded(group) for group in batch]
        silenced = gate.silenced(known)
        for group, gain, gated in zip(
            batch, batch_advantages(known, settings.learner, 0.9, silenced), silenced, strict=True
        ):
            log.write(group, "trained", step, gain, gated)
            gains += gain.tolist()
        log.write(dataclasses.replace(made[0]), "dropped: stale", step)
    log.close()
    return tmp_path, settings, gains


def test_rules_over_a_batch_are_taken_over_the_batches_of_the_run(apart: tuple[Path, Sections, list[float]]) -> None:
    run, settings, gains = apart
    after = Sections.model_validate({"learner": SEPARATE | {"min_rm_auroc": 0.0}})
    change = changed(run, settings, after)
    assert change.groups == 6, "the dropped ones had no advantages"
    before, then = change.columns().advantages
    assert before == pytest.approx(gains) and before[-4:].tolist() == [0.0] * 4, "the gate is closed"
    assert any(then[-4:]), "and would be open"


def test_a_step_that_was_done_again_is_two_batches(run: Path) -> None:
    log = RewardLog(run / "rewards", limit_mb=1)
    for group in recorded():
        log.write(group, "trained", 1)
    log.close()
    assert [[group["id"] for group in batch] for batch in batches(run, 6)] == [[0, 1, 2, 3, 4, 5]] * 2


def test_what_the_rule_needs_and_the_run_has_not_is_told(run: Path) -> None:
    for line in (text := (run / "rewards" / "rewards.jsonl").read_text()).splitlines():
        for completion in (group := json.loads(line))["completions"]:
            completion["rm_score"] = None
        text = text.replace(line, json.dumps(group))
    (run / "rewards" / "rewards.jsonl").write_text(text)
    verifier = Sections.model_validate({"reward": {"mode": "verifier"}})
    with pytest.raises(DataError, match=r"step 1 cannot be compared so: .*'papo' needs reward-model scores"):
        changed(
            run, verifier, Sections.model_validate({"reward": {"mode": "verifier"}, "learner": {"advantage": "papo"}})
        )


def test_a_group_without_any_finite_score_is_no_group_without_a_model(run: Path) -> None:
    group = next(groups(run))
    for completion, status in zip(group["completions"], ["context_overflow", "not_finite"] * 2, strict=True):
        completion |= {"rm_score": None, "status": status}
    row = recomputed(group, RewardSettings())
    assert row["statuses"] == ["context_overflow", "not_finite"] * 2 and row["rm_scores"] == [None] * 4
    assert row["sigma_u"] == 0.0 and row["r_hat"] == [-0.1] * 4


def test_a_log_from_before_there_was_a_deviation(run: Path) -> None:
    group = next(groups(run))
    del group["sigma_dev"]
    assert recomputed(group, RewardSettings())["sigma_dev"] == 0.0
    with pytest.raises(DataError, match="group 0 was recorded without sigma_dev"):
        recomputed(group, RewardSettings(weighting="scale_free"))


def test_a_line_that_is_being_written_is_left_out(run: Path) -> None:
    with (run / "rewards" / "rewards.jsonl").open("a") as file:
        file.write('{"id": 99, "complet')
    assert [group["id"] for group in groups(run)] == list(range(6))


def test_rotated_logs_come_first(run: Path) -> None:
    folder = run / "rewards"
    lines = (folder / "rewards.jsonl").read_text().splitlines(keepends=True)
    for suffix, part in (("", lines[4:]), (".1", lines[2:4]), (".10", lines[:2])):
        (folder / f"rewards.jsonl{suffix}").write_text("".join(part))
    assert [group["id"] for group in groups(run)] == list(range(6))


def test_what_is_no_run_or_no_log_is_told(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (["compare", str(tmp_path / "nowhere")], "has no settings.json"),
        (["score", "--from-run", str(tmp_path / "nowhere")], "has no reward log"),
        (["score"], "give a file of groups, or --from-run"),
        (["score", "x.jsonl", "--from-run", str(run)], "give a file of groups, or --from-run"),
    ):
        assert cli.main(arguments) in (2, 3)
        assert says in capsys.readouterr().err
    (run / "rewards" / "rewards.jsonl").write_text('{"completions": []}\n')
    with pytest.raises(DataError, match=r"rewards\.jsonl:1 is no line of a reward log"):
        list(groups(run))
    (run / "rewards" / "rewards.jsonl").write_text("")
    assert cli.main(["compare", str(run)]) == 3 and "no groups yet" in capsys.readouterr().err


def test_a_mode_that_needs_scores_the_run_has_not(run: Path) -> None:
    group = next(groups(run))
    for completion in group["completions"]:
        completion["rm_score"] = None
    with pytest.raises(DataError, match=r"group 0 cannot be rewarded so: .*needs reward-model scores"):
        recomputed(group, RewardSettings())
