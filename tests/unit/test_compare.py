"""The comparison of arms runs what is missing, once, and never what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import compare


def result(greedy: float, sampled: float) -> str:
    return json.dumps({"greedy": greedy, "sampled": sampled, "interval95": {"greedy": 0.02, "sampled": 0.03}})


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder of deploy/quickstart.sh after its run."""
    hero = tmp_path / "hero"
    hero.mkdir()
    (hero / "summary.json").write_text(json.dumps({"seconds": {"reward_model": 100.0, "training": 250.0}}))
    (hero / "eval_before.json").write_text(result(0.4, 0.3))
    (hero / "eval_after.json").write_text(result(0.7, 0.6))
    return tmp_path


def test_missing_arms_are_run_and_all_stand_side_by_side(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def pretend(module: str, *arguments: Any) -> None:
        commands.append([module, *map(str, arguments)])
        for arm, files in {
            "verifier": {"summary.json": "{}", "eval_after.json": result(0.6, 0.5)},
            "more-cold-start": {"sft.json": "{}", "eval.json": result(0.9, 0.8)},
        }.items():
            for name, text in files.items():
                (finished / arm).mkdir(exist_ok=True)
                if any(arm in part for part in commands[-1]) and (name != "eval.json" or "evaluate" in module):
                    (finished / arm / name).write_text(text)

    monkeypatch.setattr(compare, "_run", pretend)
    assert compare.main([str(finished)]) == 0

    assert [command[0] for command in commands] == ["deploy.cli", "deploy.cli", "deploy.evaluate"]
    assert all(
        command[2 - (command[0] == "deploy.evaluate")] == str(finished / "hero" / "settings.json")
        for command in commands
    )
    assert "--reward.mode=verifier" in commands[0]
    assert "--sft.max_seconds=350.0" in commands[1] and f"--sft.base={finished / 'policy'}" in commands[1]
    made = json.loads((finished / "compare.json").read_text())
    assert {arm: found["greedy"] for arm, found in made.items()} == {
        "before": 0.4, "hero": 0.7, "verifier": 0.6, "more_cold_start": 0.9,
    }  # fmt: skip
    shown = capsys.readouterr().err
    assert "more cold start" in shown and "90.0 ± 2.0" in shown and "80.0 ± 3.0" in shown

    commands.clear()
    assert compare.main([str(finished)]) == 0
    assert commands == []


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main([str(tmp_path)]) == 5
    assert "bash deploy/quickstart.sh" in capsys.readouterr().err
