"""`hero learner`: one rank of the learner. Rank 0 opens the run and talks to its broker, the others follow it."""

from __future__ import annotations

from structlog.contextvars import bind_contextvars

from common.models import local_folder
from common.server import needed_url
from common.settings import Sections
from deploy import prepare
from deploy.run_folder import open_run
from deploy.show import console
from learner import curves, distributed
from learner.ranks import joined
from learner.worker import run as run_learner
from learner.worker import run_with_others


def run(settings: Sections) -> int:
    """Trains to the end, or until a signal; returns the exit code."""
    rank, count = distributed.launched() or (0, 1)
    if count > 1:
        bind_contextvars(rank=rank)
    url = "" if rank else needed_url(settings.broker.url)
    if not rank:
        curves.check(settings)
    with joined(settings) as ranks:
        if rank:
            return run_with_others(settings, ranks)
        local_folder(settings.model.policy, "model.policy", settings.model.revision)  # before a folder is for it
        run_id, _ = open_run(settings)
        return run_learner(settings, url, run_id, prepare.prompts(settings, console), ranks)
