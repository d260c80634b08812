"""Versions of the policy as files in a folder: the one that learner and actors share, or an actor's own.

    ROOT/v3-57/model.safetensors       step 57 by incarnation 3 of the learner
    ROOT/frozen-3/model.safetensors    what that one trains adapters of; a version is the adapters alone then

A version is written under a temporary name, synced and renamed before anybody is told of it: nobody sees half of one.
Whoever reads one holds a lock on it, and what is locked is not removed.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from common.disk import is_full
from common.errors import DiskFull, WeightsError
from common.weights.manifest import Bytes, Layout, Manifest, checksum, checksum_read

FILE = "model.safetensors"
_VERSION, _FROZEN = re.compile(r"^v(\d+)-(\d+)$"), re.compile(r"^frozen-(\d+)$")


def default_folder(run_id: str, run_folder: Path) -> Path:
    """A folder in shared memory where there is one with room, else inside the run folder."""
    shared = Path("/dev/shm")  # noqa: S108 - tmpfs, named by the run's own random id
    if shared.is_dir() and os.access(shared, os.W_OK):
        return shared / f"hero-{run_id}"
    return run_folder / "weights"


def of(root: Path, incarnation: int, step: int) -> Path:
    """Where that version is."""
    return root / f"v{incarnation}-{step}"


def of_frozen(root: Path, incarnation: int) -> Path:
    """Where the weights are of which that learner trains adapters."""
    return root / f"frozen-{incarnation}"


class Draft:
    """Weights that are being written: `file` has no name of its own yet. Every call raises DiskFull when there is no
    room and WeightsError when the folder cannot be written; nothing half-written stays then."""

    def __init__(self, folder: Path) -> None:
        self.folder, root = folder, folder.parent
        """Where they will be."""
        self._temporary = root / f".{folder.name}.tmp"
        self.file = self._temporary / FILE
        with self._told():
            root.mkdir(parents=True, exist_ok=True)
            for left in root.glob(".*.tmp"):  # by one who died: only one at a time writes here
                shutil.rmtree(left, ignore_errors=True)
            self._temporary.mkdir()

    def write(self, layout: Layout, tensors: Iterable[Bytes]) -> Manifest:
        """Tensor by tensor: uint8 [nbytes] each, in the layout's order."""
        checksums = []
        with self._told(), self.file.open("wb") as file:
            file.write(layout.header)
            for offset, tensor in zip(layout.offsets, tensors, strict=True):
                file.seek(offset)  # into a mapping instead of by `write`, a full disk would be a SIGBUS
                file.write(tensor.data)
                checksums.append(checksum(tensor))
        return Manifest(layout, tuple(checksums))

    def fill(self, blocks: Iterable[bytes], size: int) -> None:
        """With a file of that size, as it is."""
        with self._told(), self.file.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
            for block in blocks:
                file.write(block)

    def reserve(self, layout: Layout) -> list[Bytes]:
        """Tensors of zeros in the file, to be filled in place; its room is taken at once."""
        with self._told():
            with self.file.open("wb") as file:
                file.write(layout.header)
                os.posix_fallocate(file.fileno(), 0, layout.file_bytes)
            return views(self.file, layout, writable=True)

    def copy(self, layout: Layout, other: Path) -> list[Bytes]:
        """Tensors of another version's file, to be changed in place."""
        with self._told():
            shutil.copyfile(other, self.file)
            return views(self.file, layout, writable=True)

    def publish(self) -> Path:
        """Makes it durable and gives it its name. Returns the folder."""
        with self._told():
            with self.file.open("rb") as file:
                os.fsync(file.fileno())
            shutil.rmtree(self.folder, ignore_errors=True)
            self._temporary.rename(self.folder)
        return self.folder

    def discard(self) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        root = self.folder.parent
        try:
            yield
        except Exception as error:
            full = is_full(error, root)
            self.discard()
            if full:
                raise DiskFull(
                    f"no room for the weights of {self.folder.name} in {root}: free some, or set weights.folder"
                ) from error
            if isinstance(error, OSError):
                raise WeightsError(
                    f"cannot write weights into {root}: {error}; set weights.folder to a folder that exists"
                ) from error
            raise


@contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """The file of a version, which is not removed meanwhile. Raises WeightsError when it cannot be read."""
    file = folder / FILE
    try:
        opened = file.open("rb")
    except OSError as error:
        raise WeightsError(
            f"policy {folder.name} was announced but {file} cannot be read ({error.strerror}); "
            "mount the learner's weights folder on this host at the same path (weights.folder)"
        ) from error
    with opened:
        _lock(opened, fcntl.LOCK_SH)
        if not file.is_file():
            raise WeightsError(f"policy {folder.name} was removed before it was read; there is a newer one")
        yield file


def verify(file: Path, manifest: Manifest) -> None:
    """Raises WeightsError unless the file holds exactly these tensors."""
    layout = manifest.layout
    # Read, not mapped: a first touch of mapped pages takes longer than a copy, and one beyond a torn end is a SIGBUS.
    with file.open("rb", buffering=0) as opened:
        if os.fstat(opened.fileno()).st_size != layout.file_bytes or opened.read(len(layout.header)) != layout.header:
            raise WeightsError(f"{file} is torn, or not the policy that was announced; it will be fetched again")
        for offset, tensor, announced in zip(layout.offsets, layout.tensors, manifest.checksums, strict=True):
            opened.seek(offset)
            found = checksum_read(opened, tensor.nbytes)
            if found != announced:
                raise WeightsError(
                    f"{file}: {tensor.name} has checksum {found.hex()[:12]}, announced was "
                    f"{announced.hex()[:12]}: torn or foreign; it will be fetched again"
                )


def views(file: Path, layout: Layout, *, writable: bool = False) -> list[Bytes]:
    """The tensors in the file, mapped and not copied: uint8 [nbytes] each."""
    mapped = np.memmap(file, np.uint8, "r+" if writable else "r")
    return [
        mapped[offset : offset + tensor.nbytes] for offset, tensor in zip(layout.offsets, layout.tensors, strict=True)
    ]


def versions(root: Path) -> list[tuple[int, int, Path]]:
    """(incarnation, step, folder) of all that are there, the oldest first."""
    found = root.iterdir() if root.is_dir() else ()
    return sorted((int(m[1]), int(m[2]), path) for path in found if (m := _VERSION.match(path.name)))


def prune(root: Path, keep: int) -> None:
    """Removes all versions but the `keep` newest, and those that somebody reads; frozen weights with their last one."""
    found = versions(root)
    ends = max(0, len(found) - keep)
    frozen = [(int(m[1]), path) for path in root.glob("frozen-*") if (m := _FROZEN.match(path.name))]
    needed = min((incarnation for incarnation, _, _ in found[ends:]), default=max(frozen, default=(0, root))[0])
    for path in [path for _, _, path in found[:ends]] + [path for incarnation, path in frozen if incarnation < needed]:
        if not _is_read(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_read(folder: Path) -> bool:
    try:
        with (folder / FILE).open("rb") as file:
            return not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False


def _lock(file: BinaryIO, kind: int) -> bool:
    """Until the file is closed. Where a file system has no locks, a reader may meet a missing file."""
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
