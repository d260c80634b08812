"""Published policy weights in a folder that learner and actors share.

A version is written under a temporary name, synced, renamed, and announced only then: an actor never sees
half of one. Its checksum travels with the announcement and is checked before use.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from common.disk import is_full
from common.errors import DiskFull, WeightsError

FILE = "model.safetensors"
_VERSION = re.compile(r"^v(\d+)-(\d+)$")


def default_folder(run_id: str, run_folder: Path) -> Path:
    """A folder in shared memory where there is one with room, else inside the run folder."""
    shared = Path("/dev/shm")  # noqa: S108 - tmpfs, named by the run's own random id
    if shared.is_dir() and os.access(shared, os.W_OK):
        return shared / f"hero-{run_id}"
    return run_folder / "weights"


def publish(root: Path, incarnation: int, step: int, write: Callable[[Path], None], keep: int) -> tuple[Path, str]:
    """Folder and checksum of a new version; `write` is given the file to write. Removes all but `keep` versions.

    Raises DiskFull when there is no room; nothing half-written stays.
    """
    folder = root / f"v{incarnation}-{step}"
    temporary = root / f".{folder.name}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        prune(root, keep - 1, spare=folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        write(temporary / FILE)
        with (temporary / FILE).open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    except Exception as error:
        full = is_full(error, root)
        shutil.rmtree(temporary, ignore_errors=True)
        if full:
            raise DiskFull(
                f"no room for the weights of step {step} in {root}: free some, or set weights.folder"
            ) from error
        if isinstance(error, OSError):
            raise WeightsError(
                f"cannot write weights into {root}: {error}; set weights.folder to a folder that exists"
            ) from error
        raise
    return folder, checksum


def verified(folder: Path, checksum: str) -> Path:
    """The weights file of an announced version, its checksum checked. Raises WeightsError."""
    file = folder / FILE
    try:
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"policy {folder.name} was announced but {file} cannot be read ({error.strerror}); "
            "mount the learner's weights folder on this host at the same path (weights.folder)"
        ) from error
    if found != checksum:
        raise WeightsError(
            f"{file} has checksum {found[:12]}, announced was {checksum[:12]}: torn or foreign; "
            "it will be fetched again"
        )
    return file


def prune(root: Path, keep: int, spare: Path | None = None) -> None:
    """Removes all versions but the `keep` newest by (incarnation, step)."""
    found = [(int(m[1]), int(m[2]), path) for path in root.iterdir() if (m := _VERSION.match(path.name))]
    for _, _, path in sorted(found)[: max(0, len(found) - keep)]:
        if path != spare:
            shutil.rmtree(path, ignore_errors=True)
