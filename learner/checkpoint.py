"""Checkpoint folders that are whole or not there: written aside, fsynced, renamed, each with a manifest.

checkpoints/step-00000050/
    manifest.json   {"format": 1, "step": 50, "files": {"state": {"bytes": 812, "sha256": "..."}, ...}}
    state           bytes of the caller: ledger, versions, sigma_bar
    policy/         what the caller's `write` puts there: weights, optimizer, random generators
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from common.errors import CheckpointError, DiskFull

log = structlog.get_logger(__name__)

FORMAT = 1
_PREFIX, _ASIDE = "step-", ".writing-"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_FULL_BELOW_BYTES = 1 << 20  # torch's file writer hides ENOSPC in a RuntimeError; a full disk has less left


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were all found as its manifest lists them."""

    step: int
    folder: Path
    state: bytes

    @property
    def policy(self) -> Path:
        """Folder that `write` filled."""
        return self.folder / "policy"


def save(root: Path, step: int, write: Callable[[Path], None], state: bytes, keep: int) -> Path:
    """Make the checkpoint of `step` durable under `root`, then delete all but the newest `keep`.

    `write(folder)` fills a fresh folder. Folders of later steps go too: training fell back behind them, and
    they belong to a branch that was left. Raises DiskFull or CheckpointError; whatever was there before is
    then untouched.
    """
    if keep < 1:
        raise ValueError(f"keep = {keep}; at least the checkpoint that is being written must stay")
    target = root / f"{_PREFIX}{step:08d}"
    aside = root / f"{_ASIDE}{target.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for leftover in root.glob(f"{_ASIDE}*"):
            shutil.rmtree(leftover)
        (aside / "policy").mkdir(parents=True)
        write(aside / "policy")
        (aside / "state").write_bytes(state)
        _seal(aside, step)
        if target.exists():  # of a branch that was left, or torn; a folder cannot be renamed over
            shutil.rmtree(target)
        aside.rename(target)
        _fsync(root)
    except (OSError, RuntimeError) as error:
        full = _out_of_space(error, root)
        shutil.rmtree(aside, ignore_errors=True)
        if full:
            raise DiskFull(
                f"no space left under {root} for the checkpoint of step {step}; free some, or keep fewer "
                "(learner.keep_checkpoints); the previous checkpoint is untouched"
            ) from error
        if isinstance(error, OSError):
            raise CheckpointError(
                f"checkpoint of step {step} cannot be written under {root}: {error}; check the folder's rights"
            ) from error
        raise
    _prune(root, step, keep)
    return target


def latest(root: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `root`, or None; a torn one is passed over and logged."""
    for step, folder in sorted(_folders(root), reverse=True):
        try:
            _verify(folder, step)
            return Checkpoint(step, folder, (folder / "state").read_bytes())
        except (CheckpointError, OSError) as error:
            log.warning("torn checkpoint passed over", folder=str(folder), reason=str(error))
    return None


def _folders(root: Path) -> Iterator[tuple[int, Path]]:
    for folder in root.glob(f"{_PREFIX}*"):
        digits = folder.name.removeprefix(_PREFIX)
        if digits.isdecimal():
            yield int(digits), folder


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            yield path.relative_to(folder).as_posix(), path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(folder: Path, step: int) -> None:
    """Write the manifest, and everything in `folder` through to the disk, folders last."""
    files = {name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for name, path in _files(folder)}
    manifest = {"format": FORMAT, "step": step, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for path in sorted(folder.rglob("*"), reverse=True):
        _fsync(path)
    _fsync(folder)


def _verify(folder: Path, step: int) -> None:
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        version, recorded, listed = manifest["format"], manifest["step"], dict(manifest["files"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"manifest.json is not readable: {error!r}") from error
    if version != FORMAT:
        raise CheckpointError(f"format {version!r} is not {FORMAT}; use the release that wrote it")
    if recorded != step:
        raise CheckpointError(f"manifest.json speaks of step {recorded!r}")
    present = dict(_files(folder))
    if missing := sorted(listed.keys() - present.keys()) or ([] if "state" in listed else ["state"]):
        raise CheckpointError(f"missing: {', '.join(missing)}")
    for name, entry in listed.items():
        size = present[name].stat().st_size
        if size != entry["bytes"]:
            raise CheckpointError(f"{name} has {size} bytes, {entry['bytes']} were written")
        if _digest(present[name]) != entry["sha256"]:
            raise CheckpointError(f"{name} does not match its checksum")


def _prune(root: Path, step: int, keep: int) -> None:
    folders = sorted(_folders(root), reverse=True)
    older = [folder for at, folder in folders if at <= step]
    for folder in [folder for at, folder in folders if at > step] + older[keep:]:
        # The new checkpoint is durable: a folder that will not go is a nuisance, not a reason to stop.
        shutil.rmtree(
            folder,
            onerror=lambda _, path, info: log.warning("old checkpoint not deleted", path=path, reason=str(info[1])),
        )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _out_of_space(error: BaseException, root: Path) -> bool:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    return root.is_dir() and shutil.disk_usage(root).free < _FULL_BELOW_BYTES
