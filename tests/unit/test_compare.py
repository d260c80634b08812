"""The comparison of arms runs what is missing, once, and never what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import compare
from tests.make import evaluated


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder of deploy/quickstart.sh after its run: 40 % before, 70 % after."""
    hero = tmp_path / "hero"
    hero.mkdir()
    (hero / "summary.json").write_text(json.dumps({"seconds": {"reward_model": 100.0, "training": 250.0}}))
    evaluated(hero / "eval", "before", [i < 4 for i in range(10)])
    evaluated(hero / "eval", "after", [i < 7 for i in range(10)])
    return tmp_path


def test_missing_arms_are_run_and_all_stand_side_by_side(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def pretend(*arguments: Any) -> None:
        command = list(map(str, arguments))
        commands.append(command)
        if command[0] == "up":
            evaluated(finished / "verifier" / "eval", "after", [i < 6 for i in range(10)])
            (finished / "verifier" / "summary.json").write_text("{}")
        elif command[0] == "sft":
            (finished / "more-cold-start").mkdir()
            (finished / "more-cold-start" / "sft.json").write_text("{}")
        else:
            evaluated(finished / "more-cold-start" / "eval", "after", [i < 9 for i in range(10)])
            (finished / "more-cold-start" / "eval" / "eval.json").write_text("{}")

    monkeypatch.setattr(compare, "_run", pretend)
    assert compare.main([str(finished)]) == 0

    assert [command[0] for command in commands] == ["up", "sft", "eval"]
    settings = str(finished / "hero" / "settings.json")
    assert all(settings in command for command in commands)
    assert "--reward.mode=verifier" in commands[0]
    assert "--sft.max_seconds=350.0" in commands[1] and f"--sft.base={finished / 'policy'}" in commands[1]
    assert f"after={finished / 'more-cold-start'}" in commands[2]
    made = json.loads((finished / "compare.json").read_text())
    assert {arm: found["mean"]["greedy"]["value"] for arm, found in made["models"].items()} == {
        "before": 0.4, "hero": 0.7, "verifier": 0.6, "more_cold_start": 0.9,
    }  # fmt: skip
    [line] = [c for c in made["comparisons"] if c["models"] == ["before", "hero"] and c["figure"] == "greedy"]
    assert line["difference"] == pytest.approx(0.3) and line["p"] == pytest.approx(0.25)
    shown = capsys.readouterr().err
    assert "more_cold_start" in shown and "90.0 [" in shown and "+30.0 [" in shown

    commands.clear()
    assert compare.main([str(finished)]) == 0
    assert commands == []


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(tmp_path)]) == 5
    assert "bash deploy/quickstart.sh" in capsys.readouterr().err
