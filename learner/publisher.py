"""Publishes the policy: its weights into the folder that actors share, then the announcement."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from pathlib import Path

import numpy as np
from safetensors.torch import save_file

from common import weights
from common.schema import Int32
from common.schema import Policy as PublishedPolicy
from common.settings import Sections
from common.streams import Broker
from common.tasks import Problem
from learner.batch import Sequence
from learner.render import Renderer
from learner.room import Room
from learner.team import Team

CHECK_SEQUENCES = 4
CHECK_TOKENS = 64


def check_sequences(renderer: Renderer, problems: SequenceOf[Problem]) -> list[Int32]:
    """A few fixed sequences on which every engine is compared with the policy."""
    found = (renderer.prompt_ids(p.question + " " + p.answer)[:CHECK_TOKENS] for p in problems[: 8 * CHECK_SEQUENCES])
    return [ids for ids in found if len(ids) > 1][:CHECK_SEQUENCES]


class Publisher:
    """`publish` gives the actors new weights; `announce_again` tells a broker that has lost its data."""

    def __init__(self, settings: Sections, broker: Broker, policy: Team, check_ids: list[Int32], room: Room) -> None:
        self._broker = broker
        self._policy = policy
        self._check_ids = check_ids
        self._check = [Sequence(ids[:1], ids[1:], np.zeros(len(ids) - 1, np.float32), 0.0) for ids in check_ids]
        self._folder = settings.weights.folder or weights.default_folder(broker.run, settings.run.folder)
        self._keep = settings.weights.keep
        self._room = room
        self._announced: PublishedPolicy | None = None

    def publish(self, incarnation: int, step: int) -> None:
        """New weights for the actors. A stop while the disk is full publishes nothing."""
        root, keep = self._folder, self._keep
        written = self._room.write(lambda: weights.publish(root, incarnation, step, self._save, keep))
        if written is None:
            return  # the checkpoint has this step; a resume publishes it
        folder, checksum = written
        self._announced = PublishedPolicy(
            incarnation=incarnation,
            step=step,
            checksum=checksum,
            folder=str(folder.resolve()),
            check_ids=self._check_ids,
            check_logprobs=self._policy.logprobs(self._check, 1.0),
        )
        self._broker.announce(self._announced)

    def announce_again(self) -> None:
        """The last announcement, if the broker does not know it any more, or knows another."""
        if self._announced and not _same(self._announced, self._broker.policy()):
            self._broker.announce(self._announced)

    def _save(self, file: Path) -> None:
        save_file({name: w.detach().cpu().contiguous() for name, w in self._policy.named_weights()}, file)


def _same(ours: PublishedPolicy, found: PublishedPolicy | None) -> bool:
    return found is not None and all(
        getattr(ours, name) == getattr(found, name) for name in ("incarnation", "step", "checksum", "folder")
    )
