"""Batches larger than memory: the budget of a micro-batch is halved for good, and the learner starts again with that.

A new process, since what a failed pass leaves in DeepSpeed's buckets, and in collectives that other ranks wait in,
cannot be taken back. Nothing is lost: groups that were not committed come again. Gradients do not depend on the budget.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
import torch

from common.errors import MemoryFull, ModelError
from common.settings import Sections

FILE = "micro_batch_tokens.json"

log = structlog.get_logger(__name__)


def fitting_budget(settings: Sections) -> int:
    """`learner.micro_batch_tokens`, or what became of it here when that did not fit; another setting starts anew."""
    asked = settings.learner.micro_batch_tokens
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        found = json.loads(_file(settings).read_text())
        if found["asked"] == asked and 0 < (fits := int(found["fits"])) < asked:
            log.warning("micro-batches are smaller than asked for, which did not fit", asked=asked, now=fits)
            return fits
    return asked


@contextmanager
def halved_when_full(settings: Sections, budget: int) -> Iterator[None]:
    """Turns want of memory into MemoryFull, with half of the `budget` that was taken on record for the next start.

    A budget of one sequence of the longest kind is not halved, since nothing smaller can be computed: ModelError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_full(error):
            raise
        half = max(budget // 2, settings.data.max_prompt_tokens + settings.sampling.max_tokens)
        if half >= budget:
            raise ModelError(
                f"out of memory with micro-batches of {budget} tokens, no more than one long sequence: set "
                "learner.gradient_checkpointing, learner.offload, or learner.zero_stage = 3 over more ranks, or lower "
                f"sampling.max_tokens ({error})"
            ) from error
        part = _file(settings).with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"asked": settings.learner.micro_batch_tokens, "fits": half}))
        part.replace(_file(settings))
        raise MemoryFull(
            f"out of memory with micro-batches of {budget} tokens; the next start takes {half}, as {FILE} in the run "
            f"folder says (hero up starts again by itself). Set learner.micro_batch_tokens = {half} to have it at once"
        ) from error


def _is_full(error: BaseException) -> bool:
    """On a CPU torch has no class for it."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _file(settings: Sections) -> Path:
    return settings.run.folder / FILE
