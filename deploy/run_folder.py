"""The folder of a run: which run it holds, its settings, and what may be resumed."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from common.errors import BrokerUnavailable, RunFolderError
from common.server import configured_url
from common.settings import Sections

IDENTITY = ("run.name", "run.seed", "model", "data", "sampling", "reward", "reward_model", "verifier", "learner")
FREE = (
    "learner.ranks",
    "learner.threads",
    "learner.checkpoint_every_steps",
    "learner.checkpoint_every_seconds",
    "reward_model.batch_tokens",
    "reward_model.url",
    "reward_model.deadline_s",
    "reward_model.attempts",
    "reward_model.concurrency",
    "learner.checkpoint_every_mb",
    "learner.keep_checkpoints",
    "learner.keep_best",
    "learner.reward_log_mb",
    "verifier.children",
)


URL_FILE = "broker.url"


def open_run(settings: Sections) -> tuple[str, bool]:
    """(run id, whether it is resumed). Raises RunFolderError as `held_in`, and when the folder cannot be written."""
    folder = settings.run.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if held := held_in(folder, settings):
            return held, True
        run_id = settings.run.id or f"{settings.run.name}-{secrets.token_hex(3)}"
        (folder / "run.json").write_text(json.dumps({"id": run_id, "identity": _identity(settings)}, indent=1))
        return run_id, False
    except OSError as error:
        raise _unusable(folder, error) from error


def held_in(folder: Path, settings: Sections) -> str | None:
    """Id of the run that these settings resume there; None where one can begin. Changes nothing.

    A run may be resumed with another length, count of processes, threads or checkpoint rhythm; everything that
    decides what is learned must be the same. Raises RunFolderError rather than mix two runs in one folder.
    """
    marker = folder / "run.json"
    identity = _identity(settings)
    try:
        if marker.is_file():
            held = json.loads(marker.read_text())
            if settings.run.id not in (None, held["id"]):
                raise RunFolderError(
                    f"{folder} holds run {held['id']}, not {settings.run.id}; set run.folder to a new folder, "
                    f"or run.id to {held['id']} to resume it"
                )
            # Another release may have begun it, with fewer settings or with more that had to be the same.
            began = _identity(Sections()) | {key: was for key, was in held["identity"].items() if key not in FREE}
            changed = sorted(key for key in identity.keys() | began.keys() if identity.get(key) != began.get(key))
            if changed:
                raise RunFolderError(
                    f"{folder} holds run {held['id']}, which differs in {', '.join(changed[:5])}; "
                    "set run.folder to a new folder, or use the settings that this run began with to resume it"
                )
            if (folder / "summary.json").is_file() and json.loads((folder / "summary.json").read_text())[
                "steps"
            ] >= settings.run.steps:
                raise RunFolderError(
                    f"{folder} holds run {held['id']}, which is finished; set run.folder to a new folder, "
                    f"or run.steps above {settings.run.steps} to train on"
                )
            return str(held["id"])
        if folder.exists() and any(folder.iterdir()):
            raise RunFolderError(
                f"{folder} holds files that are no run of ours; set run.folder to a new or empty folder"
            )
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _unusable(folder, error) from error


def _unusable(folder: Path, error: Exception) -> RunFolderError:
    return RunFolderError(f"run folder {folder} cannot be used: {error}; set run.folder to one that you may write")


def run_id_of(settings: Sections) -> str:
    """The id for a worker that is started by hand: run.id, else that of the run folder."""
    return settings.run.id or id_in(settings.run.folder)


def id_in(folder: Path) -> str:
    """The id of the run in a folder."""
    marker = folder / "run.json"
    if not marker.is_file():
        raise RunFolderError(f"which run? {marker} is not here: give --run.id (the learner's log and run.json name it)")
    return str(json.loads(marker.read_text())["id"])


def note_broker_url(folder: Path, url: str) -> None:
    """Where the server is that a run has of its own, for `broker_url_of`."""
    write_atomically(folder / URL_FILE, url + "\n")


def broker_url_of(folder: Path) -> str | None:
    """The address of the server that the run in this folder started last; None if it started none."""
    file = folder / URL_FILE
    return file.read_text().strip() if file.is_file() else None


def id_and_url(run: str, url: str | None) -> tuple[str, str]:
    """Id and broker of a run that is named by either, its id or its folder; `url` wins over the folder's own server."""
    folder = Path(run)
    held = folder.is_dir()
    found = configured_url(url) or (broker_url_of(folder) if held else None)
    if found is None:
        why = f"the run in {run} had no server of its own" if held else f"there is no folder {run} that would tell"
        raise BrokerUnavailable(f"which broker? {why}; give --url or set REDIS_URL")
    return id_in(folder) if held else run, found


def write_atomically(path: Path, text: str) -> None:
    """Whole or not there, also when the disk fills up."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _identity(settings: Sections) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    dumped = settings.model_dump(mode="json")
    for name in IDENTITY:
        section, _, key = name.partition(".")
        for field in [key] if key else list(dumped[section]):
            flat[f"{section}.{field}"] = dumped[section][field]
    return {key: value for key, value in flat.items() if key not in FREE}
