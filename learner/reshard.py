"""Checkpoints of another number of ranks, by DeepSpeed's universal form: one file for each weight and moment."""

from __future__ import annotations

import io
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import structlog

from common.disk import is_full
from common.errors import CheckpointError
from learner.policy_state import TAG, described

log = structlog.get_logger("learner")


@contextmanager
def universal(folder: Path, ranks: int) -> Iterator[Path | None]:
    """The universal form of the policy state in `folder` when it is not of so many ranks; None when it is. For rank 0.

    It lies beside `folder` for as long as this lasts, and takes about twice its room meanwhile. Without ZeRO every rank
    has the whole state, and any number of them can read it. Raises CheckpointError.
    """
    found = described(folder)
    if found["ranks"] == ranks or found["zero_stage"] == 0:
        yield None
        return
    beside = folder.parent / f".{folder.name}-universal"
    shutil.rmtree(beside, ignore_errors=True)  # of one that was killed
    try:
        _convert(folder / TAG, beside / TAG, found["ranks"], ranks)
        yield beside / TAG
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _convert(source: Path, target: Path, before: int, after: int) -> None:
    from deepspeed.checkpoint import ds_to_universal

    told = {"checkpoint": str(source), "ranks_before": before, "ranks_now": after}
    log.info("converting the checkpoint for another number of ranks, which may take minutes", **told)
    started = time.monotonic()
    options = Namespace(
        input_folder=str(source),
        output_folder=str(target),
        num_extract_workers=1,  # more are forks of this process, with all its threads
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    try:
        target.mkdir(parents=True)
        with redirect_stdout(io.StringIO()):
            ds_to_universal.main(options)
    except Exception as error:
        remedy = f"free some space under {target.parent}" if is_full(error, target.parent) else "look at the error"
        raise CheckpointError(
            f"{source} is of {before} ranks and cannot be converted for {after}: {error!r}; {remedy}, or resume with "
            f"learner.ranks = {before}"
        ) from error
    log.info("converted", seconds=round(time.monotonic() - started, 1), **told)
