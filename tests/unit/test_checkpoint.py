import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from structlog.testing import capture_logs

from common.errors import CheckpointError, DiskFull
from learner import checkpoint
from learner.score import Score
from learner.team import Team
from tests.small_disk import SmallDisk


def write(folder: Path) -> None:
    (folder / "nested").mkdir()
    (folder / "nested" / "weights").write_bytes(b"w" * 1000)


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


class Gone:
    """The connection to a rank that was killed."""

    def send(self, _: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_rank_that_is_gone_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    team = Team(None, SimpleNamespace(links={1: Gone()}, count=2))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"rank 1 .* Broken pipe"):
        checkpoint.save(tmp_path, 1, 7, team.save, b"ledger", keep=2)


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    folder = checkpoint.save(tmp_path / "new", 1, 7, write, b"ledger", keep=2)
    found = checkpoint.latest(tmp_path / "new")
    assert found == checkpoint.Checkpoint(1, 7, folder, b"ledger")
    assert (found.policy / "nested" / "weights").read_bytes() == b"w" * 1000


def test_no_folder_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "absent") is None


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoint.save(tmp_path, 1, step, write, b"", keep=2)
    assert steps(tmp_path) == ["step-00000004-v1", "step-00000005-v1"]


def test_the_best_is_kept_until_there_is_a_better_one(tmp_path: Path) -> None:
    """By slow bookkeeping beside it: of all checkpoints so far the highest score, of equal ones the oldest."""

    def export(folder: Path) -> None:
        folder.mkdir()
        (folder / "model").write_bytes(b"m")

    scores = [
        Score(False, 0.5), Score(False, 0.7), None, Score(False, 0.7), Score(False, 0.1), Score(True, 0.2),
        Score(False, 0.9), Score(True, 0.1), Score(True, 0.3), None,
    ]  # fmt: skip
    best = 0
    for step, score in enumerate(scores, 1):
        checkpoint.save(tmp_path, 1, step, write, b"", keep=1, score=score, export=export)
        if score is not None and (best == 0 or score > scores[best - 1]):
            best = step
        assert steps(tmp_path) == sorted({"best", f"step-{best:08d}-v1", f"step-{step:08d}-v1"})
        assert (tmp_path / "best").resolve() == tmp_path / f"step-{best:08d}-v1"
        assert (tmp_path / "best" / "export" / "model").read_bytes() == b"m"
        assert (tmp_path / f"step-{step:08d}-v1" / "export").is_dir() == (best == step)
        found = checkpoint.latest(tmp_path)
        assert found and found.step == step


def test_a_branch_that_was_left_is_older_than_what_followed_it(tmp_path: Path) -> None:
    for incarnation, step in ((1, 50), (1, 57), (2, 51)):  # the second learner found 57 torn
        checkpoint.save(tmp_path, incarnation, step, write, str(step).encode(), keep=2)
    assert steps(tmp_path) == ["step-00000051-v2", "step-00000057-v1"]
    found = checkpoint.latest(tmp_path)
    assert found and (found.incarnation, found.step, found.state) == (2, 51, b"51")


def test_a_learner_that_was_replaced_removes_nothing_and_is_not_followed(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 2, 4, write, b"new", keep=1)
    (tmp_path / ".writing-step-00000006-v2").mkdir()  # what the new learner is writing right now
    checkpoint.save(tmp_path, 1, 9, write, b"old", keep=1)
    found = checkpoint.latest(tmp_path)
    assert found and found.state == b"new"
    assert steps(tmp_path) == [".writing-step-00000006-v2", "step-00000004-v2"]


def test_the_same_step_again_is_newer_and_never_replaces(tmp_path: Path) -> None:
    for state in (b"first", b"second", b"third"):
        checkpoint.save(tmp_path, 1, 3, write, state, keep=2)
        found = checkpoint.latest(tmp_path)
        assert found is not None
        assert found.state == state
    assert steps(tmp_path) == ["step-00000003-v1.1", "step-00000003-v1.2"]


def test_nothing_begins_anew_over_checkpoints_that_are_all_torn(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, 1, step, write, b"", keep=2)
        (tmp_path / f"step-{step:08d}-v1" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"none of the 2 checkpoints under .* is whole"):
        checkpoint.latest(tmp_path)


def _cut(folder: Path) -> None:
    os.truncate(folder / "policy" / "nested" / "weights", 500)


def _flip(folder: Path) -> None:
    (folder / "policy" / "nested" / "weights").write_bytes(b"x" * 1000)


def _lose(folder: Path) -> None:
    (folder / "state").unlink()


def _no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def _cut_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 20)


@pytest.mark.parametrize("tear", [_cut, _flip, _lose, _no_manifest, _cut_manifest])
def test_a_torn_one_is_passed_over_and_said(tmp_path: Path, tear) -> None:
    checkpoint.save(tmp_path, 1, 1, write, b"one", keep=3)
    tear(checkpoint.save(tmp_path, 1, 2, write, b"two", keep=3))
    with capture_logs() as logs:
        found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert [entry["event"] for entry in logs] == ["torn checkpoint passed over"]
    assert "step-00000002" in logs[0]["folder"]


def test_a_write_that_dies_leaves_the_previous_one(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, 1, write, b"one", keep=1)

    def dies(folder: Path) -> None:
        write(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 1, 2, dies, b"two", keep=1)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.state == b"one"
    checkpoint.save(tmp_path, 1, 3, write, b"three", keep=1)
    assert steps(tmp_path) == ["step-00000003-v1"]  # what the dead write left is gone too


@pytest.mark.parametrize(("code", "expected"), [(errno.ENOSPC, DiskFull), (errno.EACCES, CheckpointError)])
def test_a_full_or_forbidden_disk_is_told_apart(tmp_path: Path, code: int, expected: type[Exception]) -> None:
    checkpoint.save(tmp_path, 1, 1, write, b"one", keep=1)

    def fails(folder: Path) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(CheckpointError, match="step 2") as caught:
        checkpoint.save(tmp_path, 1, 2, fails, b"two", keep=1)
    assert caught.type is expected
    assert steps(tmp_path) == ["step-00000001-v1"]


def test_torch_on_a_disk_that_is_really_full(small_disk: SmallDisk) -> None:
    """torch.save reports a full disk as a RuntimeError without errno."""
    checkpoint.save(small_disk.folder, 1, 1, write, b"one", keep=2)
    with pytest.raises(DiskFull, match="previous checkpoint is untouched") as caught:
        checkpoint.save(
            small_disk.folder, 1, 2, lambda folder: torch.save(torch.zeros(8_000_000), folder / "weights"), b"", keep=2
        )
    assert type(caught.value.__cause__) is RuntimeError
    found = checkpoint.latest(small_disk.folder)
    assert found is not None
    assert found.step == 1
    assert steps(small_disk.folder) == ["step-00000001-v1"]
