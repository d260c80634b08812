"""Published weights are whole or not there, checked before use, and few."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from common import weights
from common.errors import DiskFull, WeightsError
from common.weights import FILE, default_folder, prune, publish, verified
from tests.small_disk import SmallDisk


def bytes_of(content: bytes):
    return lambda file: file.write_bytes(content)


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def test_what_was_published_can_be_had(tmp_path: Path) -> None:
    folder, checksum = publish(tmp_path / "new" / "root", 2, 7, bytes_of(b"weights"), keep=3)
    assert folder.name == "v2-7"
    assert verified(folder, checksum).read_bytes() == b"weights"


def test_a_version_appears_whole(tmp_path: Path) -> None:
    seen: list[set[str]] = []

    def write(file: Path) -> None:
        file.write_bytes(b"half")
        seen.append({name for name in names(tmp_path) if not name.startswith(".")})
        file.write_bytes(b"whole")

    folder, checksum = publish(tmp_path, 1, 0, write, keep=3)
    assert seen == [set()], "nothing has the version's name while it is written"
    assert names(tmp_path) == {"v1-0"} and verified(folder, checksum)


@pytest.mark.parametrize("step", [0, 3])
def test_a_failed_write_leaves_the_old_versions_alone(tmp_path: Path, step: int) -> None:
    published = [publish(tmp_path, 1, i, bytes_of(b"old"), keep=5) for i in range(3)]

    def fail(file: Path) -> None:
        file.write_bytes(b"half")
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        publish(tmp_path, 1, step, fail, keep=5)
    assert names(tmp_path) == {"v1-0", "v1-1", "v1-2"}
    assert all(verified(folder, checksum) for folder, checksum in published)


def test_a_version_that_is_published_again_is_replaced(tmp_path: Path) -> None:
    publish(tmp_path, 1, 0, bytes_of(b"first"), keep=3)
    folder, checksum = publish(tmp_path, 1, 0, bytes_of(b"second"), keep=3)
    assert verified(folder, checksum).read_bytes() == b"second"


def test_only_the_newest_stay(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    for incarnation, step in [(1, 9), (1, 10), (2, 8), (2, 9), (2, 10)]:
        publish(tmp_path, incarnation, step, bytes_of(b"x"), keep=3)
    assert names(tmp_path) == {"foreign", "v2-8", "v2-9", "v2-10"}
    prune(tmp_path, 1)
    assert names(tmp_path) == {"foreign", "v2-10"}


@pytest.mark.parametrize("damage", [b"weightZ", b"weigh", b""])
def test_a_torn_or_foreign_file_is_refused(tmp_path: Path, damage: bytes) -> None:
    folder, checksum = publish(tmp_path, 1, 0, bytes_of(b"weights"), keep=3)
    (folder / FILE).write_bytes(damage)
    with pytest.raises(WeightsError, match=f"announced was {checksum[:12]}: torn or foreign"):
        verified(folder, checksum)


def test_a_missing_version_is_told_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"v1-12 was announced but .* cannot be read .*mount the learner's weights"):
        verified(tmp_path / "v1-12", "0" * 64)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match=r"set weights\.folder to a folder that exists"):
        publish(tmp_path / "file" / "root", 1, 0, bytes_of(b"x"), keep=3)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room(tmp_path: Path, number: int) -> None:
    _, checksum = publish(tmp_path, 1, 0, bytes_of(b"old"), keep=3)

    def fail(file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(DiskFull, match=r"no room for the weights of step 1 .* free some, or set weights\.folder"):
        publish(tmp_path, 1, 1, fail, keep=3)
    assert names(tmp_path) == {"v1-0"} and verified(tmp_path / "v1-0", checksum)


def test_a_real_full_disk_and_going_on_when_there_is_room(small_disk: SmallDisk) -> None:
    def safetensors(file: Path) -> None:
        save_file({"w": np.zeros(300_000, np.float32)}, file)

    small_disk.fill()
    with pytest.raises(DiskFull):
        publish(small_disk.folder, 1, 0, safetensors, keep=3)
    assert names(small_disk.folder) == {"ballast"}, "nothing half-written takes room"
    small_disk.free()
    for step in range(5):
        folder, checksum = publish(small_disk.folder, 1, step, safetensors, keep=2)
        assert verified(folder, checksum)


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_folder("r-1", tmp_path) == Path("/dev/shm/hero-r-1")
    monkeypatch.setattr(weights.os, "access", lambda *_: False)
    assert default_folder("r-1", tmp_path) == tmp_path / "weights"
