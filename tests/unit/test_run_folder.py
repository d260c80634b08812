"""A run folder holds one run: it is resumed or refused, never overwritten."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from common.errors import BrokerUnavailable, RunFolderError
from common.settings import Sections
from deploy.cli import main
from deploy.run_folder import id_and_url, open_run, run_id_of, write_atomically


def settings(folder: Path, **parts: dict[str, Any]) -> Sections:
    run = {"folder": str(folder), **parts.pop("run", {})}
    return Sections.model_validate({"run": run, **parts})


def refused(given: Sections) -> str:
    before = {path: path.read_bytes() for path in given.run.folder.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError) as caught:
        open_run(given)
    after = {path: path.read_bytes() for path in given.run.folder.rglob("*") if path.is_file()}
    assert after == before, "a refused folder is left as it was"
    return str(caught.value)


def test_a_new_run_and_its_resumption(tmp_path: Path) -> None:
    given = settings(tmp_path / "a" / "b", run={"name": "mine"})
    run_id, resumed = open_run(given)
    assert re.fullmatch(r"mine-[0-9a-f]{6}", run_id) and not resumed
    assert open_run(given) == (run_id, True)
    assert run_id_of(given) == run_id
    assert open_run(settings(tmp_path / "c"))[0] != run_id


@pytest.mark.parametrize(
    "parts",
    [
        {"run": {"steps": 9}},
        {"actor": {"count": 3}},
        {"scorer": {"count": 5}},
        {"broker": {"memory_mb": 99}},
        {"learner": {"threads": 2, "checkpoint_every_steps": 7, "ranks": 2, "keep_best": True}},
        {"reward_model": {"url": "http://elsewhere:8000", "deadline_s": 5, "attempts": 2, "concurrency": 9}},
    ],
)
def test_what_does_not_decide_what_is_learned_may_change(tmp_path: Path, parts: dict[str, Any]) -> None:
    run_id, _ = open_run(settings(tmp_path))
    assert open_run(settings(tmp_path, **parts)) == (run_id, True)


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        ({"reward": {"alpha": 0.05}}, "reward.alpha"),
        ({"run": {"seed": 1}}, "run.seed"),
        ({"learner": {"lr": 1e-6}}, "learner.lr"),
        ({"model": {"policy": "other"}}, "model.policy"),
        ({"data": {"train": "other.jsonl"}}, "data.train"),
        ({"sampling": {"completions": 4}, "reward": {"beta": 0.2}}, "reward.beta, sampling.completions"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, parts: dict[str, Any], names: str) -> None:
    run_id, _ = open_run(settings(tmp_path))
    message = refused(settings(tmp_path, **parts))
    assert f"holds run {run_id}, which differs in {names}; set run.folder" in message


def test_a_learner_by_hand_refuses_another_run_although_it_is_given_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text("{}")
    model = {"policy": str(tmp_path)}
    open_run(settings(tmp_path / "run", run={"id": "my-1"}, model=model))
    monkeypatch.setenv("REDIS_URL", "redis://nobody.invalid:6379/0")
    flags = [f"--run.folder={tmp_path / 'run'}", f"--model.policy={tmp_path}", "--learner.lr=0.5"]
    started = ["learner", "--run.id=my-1", *flags]
    assert main(started) == RunFolderError.exit_code
    assert "holds run my-1, which differs in learner.lr" in capsys.readouterr().err


def test_a_folder_is_resumed_under_its_own_id_alone(tmp_path: Path) -> None:
    open_run(settings(tmp_path, run={"id": "my-1"}))
    assert open_run(settings(tmp_path, run={"id": "my-1"})) == ("my-1", True)
    assert open_run(settings(tmp_path)) == ("my-1", True)
    message = refused(settings(tmp_path, run={"id": "my-2"}))
    assert "holds run my-1, not my-2; set run.folder to a new folder, or run.id to my-1" in message


def test_a_run_that_an_older_release_began_goes_on(tmp_path: Path) -> None:
    run_id, _ = open_run(settings(tmp_path))
    marker = json.loads((tmp_path / "run.json").read_text())
    del marker["identity"]["learner.packing"]  # it had no such setting
    marker["identity"]["learner.ranks"] = 8  # which had to be the same
    (tmp_path / "run.json").write_text(json.dumps(marker))
    assert open_run(settings(tmp_path)) == (run_id, True)
    assert "differs in learner.packing" in refused(settings(tmp_path, learner={"packing": "off"}))


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "files that are no run of ours" in refused(settings(tmp_path))


def test_a_finished_run_is_refused_unless_it_is_to_train_on(tmp_path: Path) -> None:
    run_id, _ = open_run(settings(tmp_path, run={"steps": 5}))
    (tmp_path / "summary.json").write_text(json.dumps({"steps": 5}))
    assert "is finished; set run.folder to a new folder, or run.steps above 5" in refused(
        settings(tmp_path, run={"steps": 5})
    )
    assert open_run(settings(tmp_path, run={"steps": 6})) == (run_id, True)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"id": 1}', "[]", "null"])
def test_a_torn_marker_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert "cannot be used" in refused(settings(tmp_path))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "set run.folder to one that you may write" in refused(settings(tmp_path / "file"))


def test_a_worker_needs_to_know_the_run(tmp_path: Path) -> None:
    assert run_id_of(settings(tmp_path, run={"id": "r-7"})) == "r-7"
    with pytest.raises(RunFolderError, match=r"give --run\.id"):
        run_id_of(settings(tmp_path))


def test_a_run_without_an_address_is_told_what_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    with pytest.raises(BrokerUnavailable, match="there is no folder runs/nowhere that would tell; give --url"):
        id_and_url("runs/nowhere", None)
    open_run(settings(tmp_path))
    with pytest.raises(BrokerUnavailable, match="had no server of its own; give --url"):
        id_and_url(str(tmp_path), None)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "summary.json"
    write_atomically(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "x" * 10_000 + "\ud800")
    assert file.read_text() == "old"
    write_atomically(file, "new")
    assert file.read_text() == "new"
