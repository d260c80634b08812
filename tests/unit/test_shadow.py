"""What a shadow takes from the first configuration, what it counts and keeps, without a server."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import config
from common.errors import ConfigError, RunFolderError
from common.settings import Sections
from deploy.cli import settings_apart
from deploy.rescore import Change, table
from deploy.shadow import line, settings_of
from deploy.shadow_folder import State, earlier, keep
from scorer.shadow import Recorded

FIRST: dict[str, Any] = {"reward_model": {"model": "rm-1"}, "verifier": {"kind": "paper"}}


def sections(**changes: Any) -> Sections:
    return Sections.model_validate(FIRST | changes)


@pytest.mark.parametrize(
    ("second", "verdicts", "scores", "sigma"),
    [
        ({}, True, True, True),
        ({"reward": {"alpha": 0.01, "weighting": "off"}}, True, True, True),
        ({"reward": {"sigma_momentum": 0.5}}, True, True, False),
        ({"verifier": {"kind": "math"}}, False, True, True),
        ({"verifier": {"kind": "paper", "deadline_s": 1}}, False, True, True),
        ({"verifier": {"kind": "paper", "children": 8, "tasks_per_child": 9}}, True, True, True),
        ({"reward_model": {"model": "rm-1", "batch_tokens": 9}}, True, True, True),
        ({"reward_model": {"model": "rm-1", "max_length": 9}}, True, False, False),
        ({"reward_model": {"model": "rm-2"}}, True, False, False),
        ({"reward_model": {}}, True, True, True),
        ({"reward": {"mode": "rm"}}, True, True, True),
        ({"reward": {"mode": "verifier"}}, True, False, False),
    ],
)
def test_what_is_the_same_is_recorded(second: dict[str, Any], verdicts: bool, scores: bool, sigma: bool) -> None:
    assert Recorded.of(sections(), sections(**second)) == Recorded(verdicts, scores, sigma)


def test_what_nobody_recorded_is_not_taken() -> None:
    assert Recorded.of(sections(reward={"mode": "verifier"}), sections()) == Recorded(True, False, False)
    assert Recorded.of(None, sections()) == Recorded(False, False, False)
    assert Recorded.of(None, Sections()) == Recorded(False, True, False), "it names no reward model of its own"


def test_what_the_second_file_leaves_out_is_the_run_s(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(config.dump(sections(learner={"advantage": "corpo"})))
    file = tmp_path / "second.toml"
    file.write_text("[reward]\nalpha = 0.05\n")

    def given(*flags: str, **changes: Any) -> tuple[Sections | None, Sections]:
        named = {"run": str(tmp_path), "config": None, "first": None} | changes
        return settings_of(argparse.Namespace(**named), flags)

    first, second = given(config=file)
    assert first is not None and first.reward.alpha == 0.1 and second.reward.alpha == 0.05
    assert (second.verifier.kind, second.reward_model.model, second.learner.advantage) == ("paper", "rm-1", "corpo")
    first, second = given("--reward.beta", "0.2")
    assert first is not None and (first.reward.beta, second.reward.beta) == (0.1, 0.2)
    assert second.verifier.kind == "paper"
    assert given(config=file, run="r-1")[0] is None
    assert given(config=file, run="r-1", first=tmp_path / "settings.json")[1].verifier.kind == "paper"
    with pytest.raises(ConfigError, match="which second configuration"):
        given(run="r-1")
    file.write_text('[reward]\nmode = "rm"\n')
    with pytest.raises(ConfigError, match=r"learner\.advantage = corpo: has no baseline"):
        given(config=file)


def test_a_setting_and_its_value_are_no_file() -> None:
    words = ["--run", "r", "--reward.k", "-3", "a.toml", "--data.families={}", "b", "--run.id", "--keep"]
    settings, others = settings_apart(words)
    assert settings == ["--reward.k=-3", "--data.families={}", "--run.id"]
    assert others == ["--run", "r", "a.toml", "b", "--keep"]


def test_the_server_counts_what_is_lost_over_all_shadows_of_a_name() -> None:
    state = State("r", "second", lost_at=5)
    for counted, lost in ((5, 0), (7, 2), (7, 2), (0, 2), (3, 5)):  # in between it has lost its data
        state.count_lost(counted)
        assert state.lost == lost


def test_a_folder_holds_one_shadow(tmp_path: Path) -> None:
    folder, settings = tmp_path / "a" / "b", sections()
    assert earlier(folder, "r", "second", settings) is None
    state = State("r", "second", groups=3, sigma_bar=0.5)
    keep(folder, state, settings)
    assert earlier(folder, "r", "second", sections(scorer={"batch_groups": 2})) == state
    for run, name, other, says in (
        ("r2", "second", {}, "holds shadow second of run r; give another folder as --out"),
        ("r", "third", {}, "holds shadow second of run r"),
        ("r", "second", {"reward": {"alpha": 0.05}}, r"under other settings \(reward.alpha\); give another --name"),
        ("r", "second", {"learner": {"advantage": "corpo"}}, r"\(learner.advantage\)"),
    ):
        with pytest.raises(RunFolderError, match=says):
            earlier(folder, run, name, sections(**other))
    for damage in ("{", "[]", '{"run": "r"}', '{"other": 1}', "1"):
        (folder / "shadow.json").write_text(damage)
        with pytest.raises(RunFolderError, match="cannot be used"):
            earlier(folder, "r", "second", settings)
    (folder / "shadow.json").unlink()
    with pytest.raises(RunFolderError, match="holds files that are no shadow's"):
        earlier(folder, "r", "second", settings)


def row(statuses: list[str], r_hat: list[float], weight: float = 1.0) -> dict[str, Any]:
    rewards = (weight * np.array(r_hat)).tolist()
    return {"statuses": statuses, "rm_scores": None, "r_hat": r_hat, "rewards": rewards, "weight": weight}


def test_the_line_and_the_latest_groups() -> None:
    state = State("r", "second", groups=2, lost=4, malformed=1)
    change = Change(Sections(), Sections(), most=5)
    assert line(state, None, change) == "groups 2  lost 4  malformed 1"
    old, new = row(["correct", "wrong"], [1.0, 0.0]), row(["wrong", "wrong"], [-0.1, 0.1], 2.0)
    change.add([old], [new])
    change.add([old], [old])
    assert line(state, 7, change) == (
        "groups 2  lag 7  lost 4  malformed 1  verdicts 25.0% differ  reward 0.500 -> 0.250  "
        "|advantage| 0.500 -> 0.350  signs 50.0% change"
    )
    for _ in range(3):  # and then the first is forgotten
        change.add([old], [old])
        assert (change.groups, change.completions) == (2, 4)
    assert change.columns().sign_changes == 0.0 and table(change).title == "2 groups, 4 completions"


def test_no_group_is_dropped_without_a_bound() -> None:
    change = Change(Sections(), Sections())
    for _ in range(3):
        change.add([row(["correct"], [1.0])], [row(["correct"], [1.0])])
    assert change.groups == change.completions == 3 and change.columns().correct.all()
