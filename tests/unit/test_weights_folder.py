"""Versions in a folder are whole or not there, checked before use, few, and not removed while they are read."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from common.errors import DiskFull, WeightsError
from common.weights import folder
from common.weights.folder import FILE, Draft, default_folder, locked, of, prune, verify, versions, views
from common.weights.manifest import Bytes, Layout
from tests.make import published
from tests.small_disk import SmallDisk

LAYOUT = Layout.of([("w", "F32", (2, 3)), ("half", "F16", (5,)), ("scalar", "F32", ()), ("empty", "F32", (0, 4))])


def tensors() -> list[Bytes]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, tensor.nbytes, np.uint8) for tensor in LAYOUT.tensors]


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_what_was_published_can_be_had_as_safetensors(tmp_path: Path) -> None:
    given = tensors()
    draft = Draft(of(tmp_path / "new" / "root", 2, 7))
    manifest = draft.write(LAYOUT, given)
    path = draft.publish()
    assert path.name == "v2-7"
    with locked(path) as file:
        verify(file, manifest)
        assert [tensor.tobytes() for tensor in views(file, LAYOUT)] == [tensor.tobytes() for tensor in given]
        read = load_file(file)
    assert {name: value.shape for name, value in read.items()} == {t.name: t.shape for t in LAYOUT.tensors}
    assert [read[t.name].tobytes() for t in LAYOUT.tensors] == [tensor.tobytes() for tensor in given]


def test_a_version_appears_whole(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def slowly() -> Iterator[Bytes]:
        for tensor in tensors():
            seen.append({name for name in names(tmp_path) if not name.startswith(".")})
            yield tensor

    draft = Draft(of(tmp_path, 1, 0))
    draft.write(LAYOUT, slowly())
    assert seen == [set()] * len(LAYOUT.tensors), "nothing has the version's name while it is written"
    draft.publish()
    assert names(tmp_path) == {"v1-0"}


@pytest.mark.parametrize("step", [0, 3])
def test_a_failed_write_leaves_the_old_versions_alone(tmp_path: Path, step: int) -> None:
    before = [published(tmp_path, 1, i) for i in range(3)]

    def fail() -> Iterator[Bytes]:
        yield tensors()[0]
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        Draft(of(tmp_path, 1, step)).write(LAYOUT, fail())
    assert names(tmp_path) == {"v1-0", "v1-1", "v1-2"}
    for policy in before:
        verify(Path(policy.folder) / FILE, policy.manifest)


def test_a_version_that_is_published_again_is_replaced(tmp_path: Path) -> None:
    first, second = published(tmp_path, 1, 0, 1.0), published(tmp_path, 1, 0, 2.0)
    file = Path(second.folder) / FILE
    verify(file, second.manifest)
    with pytest.raises(WeightsError):
        verify(file, first.manifest)


def test_only_the_newest_stay(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    for incarnation, step in [(1, 9), (1, 10), (2, 8), (2, 9), (2, 10)]:
        prune(tmp_path, 2)
        published(tmp_path, incarnation, step)
    assert names(tmp_path) == {"foreign", "v2-8", "v2-9", "v2-10"}
    assert [(incarnation, step) for incarnation, step, _ in versions(tmp_path)] == [(2, 8), (2, 9), (2, 10)]
    prune(tmp_path, 1)
    assert names(tmp_path) == {"foreign", "v2-10"}
    prune(tmp_path / "nothing", 1)


def test_what_somebody_reads_stays_until_they_have(tmp_path: Path) -> None:
    for step in range(3):
        published(tmp_path, 1, step)
    with locked(tmp_path / "v1-0"), locked(tmp_path / "v1-0"):
        prune(tmp_path, 1)
        assert names(tmp_path) == {"v1-0", "v1-2"}
    prune(tmp_path, 1)
    assert names(tmp_path) == {"v1-2"}


def test_a_version_that_was_removed_between_the_look_and_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(published(tmp_path).folder)
    monkeypatch.setattr(folder, "_lock", lambda *_: shutil.rmtree(path))
    with pytest.raises(WeightsError, match="removed before it was read"), locked(path):
        pass


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1] + b"\x01", lambda b: b[:-1], lambda b: b"", lambda b: b"\0" + b[1:]]
)
def test_a_torn_or_foreign_file_is_refused(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    policy = published(tmp_path)
    file = Path(policy.folder) / FILE
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(WeightsError, match=r"torn, or not the policy|has checksum .*torn or foreign"):
        verify(file, policy.manifest)


def test_a_missing_version_is_told_with_its_remedy(tmp_path: Path) -> None:
    with (
        pytest.raises(WeightsError, match=r"v1-12 was announced but .* cannot be read .*mount the learner's weights"),
        locked(tmp_path / "v1-12"),
    ):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"set weights\.folder to a folder that exists"):
        Draft(of(tmp_path / "file" / "root", 1, 0))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room(tmp_path: Path, number: int) -> None:
    old = published(tmp_path)

    def fail() -> Iterator[Bytes]:
        yield tensors()[0]
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFull, match=r"no room for the weights of v1-1 .* free some, or set weights\.folder"):
        Draft(of(tmp_path, 1, 1)).write(LAYOUT, fail())
    assert names(tmp_path) == {"v1-0"}
    verify(Path(old.folder) / FILE, old.manifest)


def test_a_real_full_disk_and_going_on_when_there_is_room(small_disk: SmallDisk) -> None:
    layout = Layout.of([("w", "F32", (300_000,))])
    tensor = np.zeros(layout.data_bytes, np.uint8)
    small_disk.fill()
    for act in (
        lambda: Draft(of(small_disk.folder, 1, 0)).write(layout, [tensor]),
        lambda: Draft(of(small_disk.folder, 1, 0)).reserve(layout),
    ):
        with pytest.raises(DiskFull):
            act()
        assert names(small_disk.folder) == {"ballast"}, "nothing half-written takes room"
    small_disk.free()
    for step in range(5):
        prune(small_disk.folder, 1)
        draft = Draft(of(small_disk.folder, 1, step))
        manifest = draft.write(layout, [tensor])
        verify(draft.publish() / FILE, manifest)


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_folder("r-1", tmp_path) == Path("/dev/shm/hero-r-1")
    monkeypatch.setattr(folder.os, "access", lambda *_: False)
    assert default_folder("r-1", tmp_path) == tmp_path / "weights"
