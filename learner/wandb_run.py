"""A run of Weights & Biases under our run's id, online or offline.

W&B takes steps in ascending order and nothing back. So the steps that are done again after a crash keep what was drawn
first, and every point is there once; the metrics log has both.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import wandb

from common.config import public
from common.settings import Sections
from learner.json_lines import lines_by_step
from learner.points import Points
from learner.ratio_bins import CLOSED_LOG2_EDGES

INIT_S = 30.0
FINISH_S = 10.0
PROJECT = "hero-rl"

log = structlog.get_logger("learner")


class WandbRun:
    """A `common.outbox.Carrier`."""

    def __init__(self, settings: Sections, run_id: str) -> None:
        folder = settings.run.folder
        self._settings, self._run_id = settings, run_id
        self._drawn = {False: _last_step(folder / "metrics.jsonl"), True: _last_step(folder / "eval.jsonl")}
        """The last step of training, and of evaluation, that the run was told of."""
        self._run: Any = None

    def carry(self, items: Sequence[Points]) -> None:
        for points in items:
            if points.step > self._drawn[points.evaluates]:
                if self._run is None:
                    self._run = self._begun()
                self._add(self._run, points)
                self._drawn[points.evaluates] = points.step

    def close(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.finish()

    def _begun(self) -> Any:
        metrics, run = self._settings.metrics, self._settings.run
        begun = wandb.init(
            project=metrics.wandb_project or os.environ.get("WANDB_PROJECT", PROJECT),
            id=self._run_id,
            name=os.environ.get("WANDB_NAME", run.name),
            dir=run.folder,
            mode=metrics.wandb,
            resume="allow",
            reinit="create_new",
            config=public(self._settings),
            settings=wandb.Settings(
                silent=True,
                console="off",
                disable_git=True,
                save_code=False,
                x_disable_meta=True,  # the command line may hold the broker's address, and that a password
                x_transaction_log_flush_interval=1.0,  # what a SIGKILL takes along, of 15 s
                init_timeout=INIT_S,
                finish_timeout=FINISH_S,
            ),
        )
        log.info("drawn by W&B", at=begun.url or begun.dir)
        begun.define_metric("eval/*", step_metric="eval/step")
        return begun

    def _add(self, run: Any, points: Points) -> None:
        """An evaluation goes with the step of training that W&B is at, and is drawn over the one that it began at."""
        if points.evaluates:
            run.log(points.scalars | {"eval/step": points.step}, step=max(run.step, self._drawn[False]))
            return
        drawn: dict[str, Any] = dict(points.scalars)
        if points.ratios:
            drawn["train/ratio_log2"] = wandb.Histogram(np_histogram=(points.ratios, list(CLOSED_LOG2_EDGES)))
        run.log(drawn, step=points.step)


def _last_step(log: Path) -> int:
    """-1 without one."""
    return max((line["step"] for line in lines_by_step(log)), default=-1)
