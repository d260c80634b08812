"""What the metrics log has, drawn elsewhere too: TensorBoard, W&B. No trouble of theirs is training's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any

from common.config import public
from common.errors import ConfigError
from common.extras import needs
from common.outbox import Outbox
from common.settings import Sections
from learner.points import Points, of_evaluation, of_step
from learner.round import Figure

CLOSE_S = 15.0
KEYS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


def check(settings: Sections) -> None:
    """Raises ConfigError for what cannot be drawn: a package is missing, or W&B's key."""
    if settings.metrics.tensorboard:
        needs("metrics.tensorboard = true", "tensorboard", "tensorboard")
    mode = settings.metrics.wandb
    if mode != "off":
        needs(f'metrics.wandb = "{mode}"', "wandb", "wandb")
    if mode == "online" and not any(os.environ.get(name) for name in KEYS):
        import wandb

        if not wandb.login(prompt=False, verify=False):  # of ~/.netrc and its own settings
            raise ConfigError(
                'metrics.wandb = "online" needs a key of W&B, and there is none: set WANDB_API_KEY or run `wandb '
                'login`; "offline" needs none'
            )


class Curves:
    """`step` and `evaluated` as the logs have them."""

    def __init__(self, settings: Sections, run_id: str) -> None:
        """Before the first line of this learner: what the logs have then was drawn already."""
        self._boxes: list[Outbox[Points]] = []
        if settings.metrics.tensorboard:
            from learner.event_files import EventFiles

            files = EventFiles(settings.run.folder / "tensorboard", _table(settings))
            self._boxes.append(Outbox("TensorBoard's event files", files))
        if settings.metrics.wandb != "off":
            from learner.wandb_run import WandbRun

            self._boxes.append(Outbox("W&B", WandbRun(settings, run_id)))

    @property
    def lost(self) -> int:
        """Steps and evaluations that could not be drawn, of all that draw."""
        return sum(box.lost for box in self._boxes)

    def step(self, line: Mapping[str, Any]) -> None:
        """A line of the metrics log."""
        for box in self._boxes:
            box.put(of_step(line))

    def evaluated(self, figure: Figure) -> None:
        for box in self._boxes:
            box.put(of_evaluation(figure, time.time()))

    def close(self) -> None:
        for box in self._boxes:
            box.close(CLOSE_S)


def _table(settings: Sections) -> str:
    """In Markdown, each line of it as it is."""
    held = public(settings)
    lines = [f"{name}.{key} = {json.dumps(value)}" for name, section in held.items() for key, value in section.items()]
    return "\n".join(f"    {line}" for line in lines)
