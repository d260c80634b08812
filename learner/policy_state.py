"""The resumable state of a policy as a folder: weights and optimizer by DeepSpeed, random generators, counters.

deepspeed/            DeepSpeed's checkpoint, files of every rank
random-0.json         generators of rank 0, and so on
policy.json           {"ranks": 2, "zero_stage": 1, "dtype": "float32", "shapes": {...}, "applied_steps": 50, ...}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import structlog

from common.disk import is_full
from common.errors import CheckpointError, DiskFull
from learner import distributed, random_state
from learner.options import PolicyOptions

TAG = "deepspeed"
_DESCRIPTION = "policy.json"

log = structlog.get_logger("learner")


def save(engine: Any, options: PolicyOptions, folder: Path, counters: Mapping[str, int]) -> None:
    """Writes this rank's part into `folder`; every rank must call it.

    Raises DiskFull, or what else kept this rank from writing, when all ranks have come through.
    """
    writes = _Writes(engine.checkpoint_engine)
    with _instead_of(engine, checkpoint_engine=writes, _copy_recovery_script=lambda _: None):
        engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    generators = _generators(folder, distributed.rank())
    writes.attempt(lambda: random_state.save(generators), generators)
    if distributed.is_first():
        description = _described(engine, options) | {"ranks": distributed.world_size()} | counters
        file = folder / _DESCRIPTION
        writes.attempt(lambda: file.write_text(json.dumps(description)), file)
    if writes.error:
        raise writes.error


def load(engine: Any, options: PolicyOptions, folder: Path, universal: Path | None, seed: int) -> dict[str, Any]:
    """Reads this rank's part; every rank must call it. Returns what `save` was given as counters, and more.

    `universal` is the same checkpoint in DeepSpeed's form for any number of ranks, needed when that has changed. The
    folder is trusted: DeepSpeed reads its files with pickle. Raises CheckpointError.
    """
    found = described(folder)
    _refuse_another(engine, options, folder, found)
    ranks = distributed.world_size()
    source = folder / TAG if universal is None else universal
    if universal is None and found["ranks"] != ranks and options.zero_stage:
        raise CheckpointError(f"{folder} is of {found['ranks']} ranks and was not converted for {ranks}")
    try:
        with _universal(engine, universal is not None):
            loaded, _ = engine.load_checkpoint(str(source.parent), tag=source.name)
        if loaded is None:
            raise FileNotFoundError(f"no {source.name} folder in it")
        if distributed.rank() < found["ranks"]:
            random_state.load(_generators(folder, distributed.rank()))
        else:
            random_state.seed(seed + distributed.rank())
            log.info("a new rank: its random generators are seeded", rank=distributed.rank())
    except (OSError, RuntimeError, ValueError, KeyError, AssertionError, EOFError) as error:
        raise CheckpointError(f"the state of the policy in {folder} cannot be read: {error}") from error
    return found


def described(folder: Path) -> dict[str, Any]:
    """policy.json of a folder that `save` has filled; CheckpointError when it is none."""
    try:
        found = json.loads((folder / _DESCRIPTION).read_bytes())
        return {name: found[name] for name in ("ranks", "zero_stage", "dtype", "shapes")} | found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} does not hold the state of a policy: {error!r}") from error


def lacking(folder: Path, ranks: int) -> list[int]:
    """The ranks whose files are not in `folder`."""
    return [rank for rank in range(ranks) if not _generators(folder, rank).is_file()]


def _generators(folder: Path, rank: int) -> Path:
    return folder / f"random-{rank}.json"


def _described(engine: Any, options: PolicyOptions) -> dict[str, Any]:
    shapes = {n: list(getattr(p, "ds_shape", p.shape)) for n, p in engine.module.model.named_parameters()}
    return {"zero_stage": options.zero_stage, "dtype": options.dtype, "shapes": shapes}


def _refuse_another(engine: Any, options: PolicyOptions, folder: Path, found: Mapping[str, Any]) -> None:
    ours = _described(engine, options)
    for name, remedy in (("zero_stage", "learner.zero_stage"), ("dtype", "learner.dtype")):
        if found[name] != ours[name]:
            raise CheckpointError(
                f"{folder} was written with {name} = {found[name]}, this is {ours[name]}; set {remedy} back"
            )
    held, wanted = found["shapes"], ours["shapes"]
    for name in [*wanted, *held]:
        if held.get(name) != wanted.get(name):
            raise CheckpointError(
                f"{folder} is of another model: {name} is {held.get(name, 'not there')} in it and "
                f"{wanted.get(name, 'not there')} in model.policy; resume with the model that it is of"
            )


class _Writes:
    """DeepSpeed's writer of files. An error waits until the end: raised at once, it would leave all others waiting."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.error: OSError | RuntimeError | DiskFull | None = None
        """The first one."""

    def attempt(self, write: Callable[[], object], file: Path) -> None:
        try:
            write()
        except (OSError, RuntimeError) as error:
            if self.error is None:
                self.error = error
                if is_full(error, file):
                    self.error = DiskFull(f"rank {distributed.rank()} has no space left for {file}: {error}")

    def save(self, state_dict: Any, path: str) -> None:
        self.attempt(lambda: self._writer.save(state_dict, path), Path(path))

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.attempt(lambda: self._writer.makedirs(path, exist_ok=exist_ok), Path(path))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


@contextmanager
def _instead_of(thing: Any, **attributes: Any) -> Iterator[None]:
    kept = {name: getattr(thing, name) for name in attributes}
    for name, value in attributes.items():
        setattr(thing, name, value)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(thing, name, value)


@contextmanager
def _universal(engine: Any, wanted: bool) -> Iterator[None]:
    """For as long as it lasts `engine` reads universal checkpoints, if wanted; its config decides that once for all."""
    optimizer = engine.basic_optimizer
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    with _instead_of(engine._config, load_universal_checkpoint=wanted):
        yield
    if wanted:
        # ZeRO-3 gives all groups the settings of the first, and all weights one count of steps, which each then raises.
        for group, own in zip(optimizer.param_groups, groups, strict=True):
            group.update(own)
        for state in optimizer.state.values():
            state["step"] = deepcopy(state["step"])
