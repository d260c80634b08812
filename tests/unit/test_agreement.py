"""What all ranks of a learner must have alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.settings import Sections
from learner import agreement
from learner.agreement import differences, facts


def found(folder: Path, **parts: dict[str, Any]) -> dict[str, str]:
    model = {"model": {"policy": str(folder)}}
    return facts(Sections.model_validate(model | parts))


def model(folder: Path, config: str = "{}") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(config)
    return folder


def test_what_differs_is_named_with_rank_and_both_values(tmp_path: Path) -> None:
    ours = found(model(tmp_path / "a"))
    theirs = found(tmp_path / "a", learner={"lr": 1e-3, "ranks": 4}, data={"families": {"x": {"n": 1}}})
    assert differences(ours, ours, 1) == []
    assert differences(ours, theirs, 3) == [
        "data.families = {'x': {'n': 1}} on rank 3, {} on rank 0",
        "learner.lr = 0.001 on rank 3, 5e-05 on rank 0",
        "learner.ranks = 4 on rank 3, 1 on rank 0",
    ]


def test_where_the_broker_is_concerns_rank_0_alone(tmp_path: Path) -> None:
    ours = found(model(tmp_path / "a"), broker={"url": "redis://head:6379/0"}, run={"id": "my-1f2e3d"})
    assert differences(ours, found(tmp_path / "a"), 1) == []


def test_another_model_at_the_same_place_and_other_code_are_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = found(model(tmp_path / "a"))
    (tmp_path / "a" / "config.json").write_text('{"hidden_size": 8}')
    [told] = differences(ours, found(tmp_path / "a"), 1)
    assert told.startswith("the model of model.policy = a@")
    (tmp_path / "a" / "config.json").write_text("{}")
    (tmp_path / "learner").mkdir()
    (tmp_path / "learner" / "loss.py").write_text("LOSS = 0")
    monkeypatch.setattr(agreement, "_ROOT", tmp_path)
    [told] = differences(ours, found(tmp_path / "a"), 1)
    assert told.startswith("the version of hero-rl = 0")
