"""Where files go: the run folder and the folder of the weights, whether they can be written and have room."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from actors.join import fetched_folder
from common.errors import RunFolderError
from common.settings import Sections
from common.weights.folder import default_folder
from deploy.doctor import sizes
from deploy.doctor.case import Case
from deploy.doctor.finding import Finding, error, ok, skipped, told, warning
from deploy.doctor.machine import Place, place
from deploy.doctor.shapes import UNKNOWN, policy_shape
from deploy.doctor.sizes import Need, shown
from deploy.run_folder import held_in
from learner.flops import Shape

Needed = Callable[[Sections, Shape], Need]


def run_folder(case: Case) -> Iterator[Finding]:
    """What the learner writes: settings, checkpoints, logs, exports."""
    if "learner" not in case.roles:
        yield skipped("run.folder", "the learner alone writes there")
        return
    folder = case.settings.run.folder
    try:
        held = held_in(folder, case.settings)
    except RunFolderError as problem:
        yield told("run.folder", problem)
        return
    yield writable("run.folder", folder, f"holds run {held}, which is resumed" if held else "a new run begins there")
    yield from _room("run.folder", case, folder, sizes.run_folder, "lower learner.keep_checkpoints, or free some")


def weights_folder(case: Case) -> Iterator[Finding]:
    """The learner's, which actors on this host read; or what an actor fetches."""
    s = case.settings
    check = "weights.folder"
    if not case.roles & {"learner", "actor"}:
        yield skipped(check, "scorers have no weights of the policy")
        return
    if "learner" not in case.roles and s.actor.weights_from in ("auto", "folder") and s.weights.folder is not None:
        yield _mounted(case, s.weights.folder)
        return
    theirs = "learner" not in case.roles
    folder = fetched_folder(s, case.run_id) if theirs else versions_folder(case)
    yield writable(check, folder, "what this actor fetches" if theirs else "new weights of the policy")
    remedy = f"mount more (docker run --shm-size), or set {'weights.cache' if theirs else 'weights.folder'}"
    yield from _room(check, case, folder, sizes.weights_folder, remedy)


def versions_folder(case: Case) -> Path:
    """Where the learner writes new weights."""
    return case.settings.weights.folder or default_folder(case.run_id, case.settings.run.folder)


def writable(check: str, folder: Path, what: str) -> Finding:
    """By a file without a name, which is gone at once; a folder that is not there yet is not made."""
    try:
        at = place(folder)
        with tempfile.TemporaryFile(dir=at.exists) as file:
            file.write(b"x")
    except OSError as problem:
        found = f"{folder} cannot be written: {problem.strerror or problem}"
        return error(check, found, f"set {check} to a folder that you may write")
    return ok(check, f"{folder} ({at.kind}): {what}")


def _room(check: str, case: Case, folder: Path, needed: Needed, remedy: str) -> Iterator[Finding]:
    shape = policy_shape(case)
    if shape is None:
        yield skipped(f"{check}.room", UNKNOWN)
    else:
        yield room(f"{check}.room", needed(case.settings, shape), place(folder), remedy)


def room(check: str, need: Need, at: Place, remedy: str) -> Finding:
    found = f"{shown(need.bytes)} at most ({need.sum}); free there: {shown(at.free)}"
    return ok(check, found) if need.bytes <= at.free else error(check, found, remedy)


def _mounted(case: Case, folder: Path) -> Finding:
    """On an actor's host the learner's folder is only read."""
    if folder.is_dir():
        return ok("weights.folder", f"{folder} ({place(folder).kind}) is here; the learner's, if it is mounted there")
    found = f"{folder} is not here, where the learner writes new weights"
    if case.settings.actor.weights_from == "auto":
        return warning("weights.folder", f"{found}: they will come from the broker", f"mount {folder}, or leave it so")
    return error("weights.folder", found, f'mount {folder} here, or set actor.weights_from = "broker"')
