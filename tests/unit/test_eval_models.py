"""The models that `hero eval` is given: what they are called, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ConfigError, HeroError, ModelError
from deploy.evaluation.models import named, run_settings


def model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"id": "r"}))
    return folder


def test_names_are_given_or_those_of_the_folders(tmp_path: Path) -> None:
    a, b, c = model(tmp_path / "a" / "policy"), model(tmp_path / "b" / "policy"), model(tmp_path / "tuned")
    ours = run(tmp_path / "my-run")
    model(ours / "export")
    assert named([str(a), str(b), f"best={c}", str(ours)]) == {
        "a-policy": a, "b-policy": b, "best": c, "my-run": ours / "export",
    }  # fmt: skip
    assert run_settings([str(a), f"x={ours}"]) == ours / "settings.json"
    assert run_settings([str(a)]) is None


@pytest.mark.parametrize("given", [["{m}", "{m}"], ["a={m}", "b={m}/../m"], ["a={m}", "a={other}"]])
def test_a_model_or_a_name_twice(tmp_path: Path, given: list[str]) -> None:
    m, other = model(tmp_path / "m"), model(tmp_path / "other")
    with pytest.raises(ConfigError, match="is given twice"):
        named([one.format(m=m, other=other) for one in given])


def test_what_is_no_model(tmp_path: Path) -> None:
    ended, checkpoint = run(tmp_path / "run"), tmp_path / "run" / "checkpoints" / "step-00000050-v1"
    (checkpoint / "policy").mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-weights").mkdir()
    (tmp_path / "no-weights" / "config.json").write_text("{}")
    cases: list[tuple[Path, str]] = [
        (ended, "has no export yet"),
        (ended / "checkpoints", "is a checkpoint of DeepSpeed"),
        (checkpoint, "learner.export_every_steps makes them"),
        (checkpoint / "policy", "is a checkpoint of DeepSpeed"),
        (tmp_path / "empty", "has no config.json"),
        (tmp_path / "no-weights", "has no \\*.safetensors"),
        (tmp_path / "nowhere", "there is no such folder"),
    ]
    for path, says in cases:
        with pytest.raises(HeroError, match=says) as caught:
            named([str(path)])
        assert isinstance(caught.value, ModelError)
