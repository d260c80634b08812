"""Checkpoint folders that are whole or not there: written aside, fsynced, renamed, each with a manifest.

checkpoints/step-00000050-v3/     of incarnation 3; -v3.1 when step 50 is saved once more
    manifest.json   {"format": 4, "step": 50, "files": {"state": {"bytes": 812, "sha256": "..."}, ...}}
    state           bytes of the caller: ledger, sigma, the running AUROC, the order of prompts, evaluation
    policy/         what the caller's `write` puts there: weights, optimizer, random generators
    export/         a model folder, where the best one is kept
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from common.disk import is_full
from common.errors import CheckpointError, DiskFull
from learner.score import Score

log = structlog.get_logger(__name__)

FORMAT = 4
_ASIDE = ".writing-"
_NAME = re.compile(r"(?:\.writing-)?step-(?P<step>\d+)-v(?P<incarnation>\d+)(?:\.(?P<again>\d+))?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were all found as its manifest lists them."""

    incarnation: int
    step: int
    folder: Path
    state: bytes

    @property
    def policy(self) -> Path:
        """Folder that `write` filled."""
        return self.folder / "policy"


def save(
    root: Path,
    incarnation: int,
    step: int,
    write: Callable[[Path], None],
    state: bytes,
    keep: int,
    score: Score | None = None,
    export: Callable[[Path], object] | None = None,
) -> Path:
    """Make the checkpoint of `step` durable under `root`, then delete all but the newest `keep`.

    `write(folder)` fills a fresh folder. The newest is the one of the highest incarnation, then step: so a branch
    that was left counts as old, however far it came, and a learner that another has replaced does no harm.
    With `export` the one of the best `score` stays too; `export(folder)` fills another folder of one that is better
    than all before. Raises DiskFull or CheckpointError; whatever was there before is then untouched.
    """
    if keep < 1:
        raise ValueError(f"keep = {keep}; at least the checkpoint that is being written must stay")
    target = root / _free_name(root, incarnation, step)
    best = best_of(root) if export else None
    is_best = export is not None and score is not None and (best is None or score > best[0])
    aside = root / f"{_ASIDE}{target.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        for age, leftover in _folders(root, f"{_ASIDE}*"):
            if age[0] <= incarnation:
                shutil.rmtree(leftover)
        (aside / "policy").mkdir(parents=True)
        write(aside / "policy")
        if is_best and export:
            export(aside / "export")
        (aside / "state").write_bytes(state)
        _seal(aside, step, score)
        aside.rename(target)
        _fsync(root)
    except (OSError, RuntimeError, DiskFull) as error:
        full = isinstance(error, DiskFull) or is_full(error, root)
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
    if is_best:
        _point_at(root / "best", target)
    _prune(root, keep, spare=target if is_best else best and best[1])
    return target


def best_of(root: Path) -> tuple[Score, Path] | None:
    """The best score under `root` and the folder that has it, of equal ones the oldest; None without any."""
    found = []
    for age, folder in _folders(root):
        try:
            score = json.loads((folder / "manifest.json").read_bytes())["score"]
            found += [(Score(*score), age, folder)] if score else []
        except (OSError, ValueError, KeyError, TypeError):
            continue  # torn, or of another release
    if not found:
        return None
    highest = max(score for score, _, _ in found)
    return highest, min((age, folder) for score, age, folder in found if score == highest)[1]


def _point_at(link: Path, target: Path) -> None:
    aside = link.with_suffix(".new")
    try:
        aside.unlink(missing_ok=True)
        aside.symlink_to(target.name)
        aside.replace(link)
    except OSError as error:  # of a disk that knows no links: the manifests say the same
        log.warning("no link to the best checkpoint", best=str(target), why=str(error))


def latest(root: Path) -> Checkpoint | None:
    """The newest whole checkpoint under `root`, or None; a torn one is passed over and logged.

    Raises CheckpointError when there are some and none is whole: to begin anew would throw away what they were.
    """
    found = sorted(_folders(root), reverse=True)
    for (incarnation, step, _), folder in found:
        try:
            _verify(folder, step)
            return Checkpoint(incarnation, step, folder, (folder / "state").read_bytes())
        except (CheckpointError, OSError) as error:
            log.warning("torn checkpoint passed over", folder=str(folder), reason=str(error))
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints under {root} is whole, the log says why; put one back, or move them "
            "away to train from the beginning"
        )
    return None


def _folders(root: Path, pattern: str = "step-*") -> Iterator[tuple[tuple[int, int, int], Path]]:
    """(incarnation, step, how often before) and path: in this order the last is the newest."""
    for folder in root.glob(pattern):
        if found := _NAME.fullmatch(folder.name):
            yield (int(found["incarnation"]), int(found["step"]), int(found["again"] or 0)), folder


def _free_name(root: Path, incarnation: int, step: int) -> str:
    """A name that no folder has: one cannot be renamed over, and removing it first would leave a gap."""
    taken = [again for (i, s, again), _ in _folders(root) if (i, s) == (incarnation, step)]
    return f"step-{step:08d}-v{incarnation}" + (f".{max(taken) + 1}" if taken else "")


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "manifest.json":
            yield path.relative_to(folder).as_posix(), path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(folder: Path, step: int, score: Score | None) -> None:
    """Write the manifest, and everything in `folder` through to the disk, folders last."""
    files = {name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for name, path in _files(folder)}
    manifest = {"format": FORMAT, "step": step, "score": score and [score.evaluated, score.accuracy], "files": files}
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


def _prune(root: Path, keep: int, spare: Path | None) -> None:
    for _, folder in sorted(_folders(root), reverse=True)[keep:]:
        if folder == spare:
            continue
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
