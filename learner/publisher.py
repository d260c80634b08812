"""Publishes the policy: training waits while its weights are copied out, and goes on while they are carried.

A thread makes the copy durable and announces it; where actors ask for that, `Uploader` puts it into a broker and
`RingSender` sends it to all of them at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np

from common.schema import Int32
from common.schema import Policy as PublishedPolicy
from common.settings import Sections
from common.streams import Broker
from common.tasks import Problem
from common.weights.definition import define
from common.weights.folder import Draft, default_folder
from common.weights.store import WeightStore
from learner.batch import Sequence
from learner.copy_out import CopyOut
from learner.render import Renderer
from learner.ring import RingSender
from learner.room import Room
from learner.team import Team
from learner.uploader import Uploader

CHECK_TOKENS = 64
"""In all: training waits for them at every version, on a CPU longer than for the copy."""


def check_sequences(renderer: Renderer, texts: Iterable[str]) -> list[Int32]:
    """Prompts of the first texts, CHECK_TOKENS of them at most, on which every engine is compared with the policy."""
    found, left = list[Int32](), CHECK_TOKENS
    for ids in map(renderer.prompt_ids, islice(texts, CHECK_TOKENS)):
        if left < 2:
            break
        if len(ids) > 1:
            found.append(ids[:left])
            left -= len(found[-1])
    return found


def check_sequence(ids: Int32) -> Sequence:
    """As the policy reads it: its first token is the prompt."""
    return Sequence(ids[:1], ids[1:], np.zeros(len(ids) - 1, np.float32), 0.0)


class Publisher:
    """`publish` gives the actors new weights; `keep_up` tells a broker that has lost its data."""

    def __init__(
        self,
        settings: Sections,
        broker: Broker,
        policy: Team,
        renderer: Renderer,
        problems: SequenceOf[Problem],
        room: Room,
    ) -> None:
        self._broker, self._policy, self._room = broker, policy, room
        self._check_ids = check_sequences(renderer, (f"{p.question} {p.answer}" for p in problems))
        self._check = [check_sequence(ids) for ids in self._check_ids]
        root = settings.weights.folder or default_folder(broker.run, settings.run.folder)
        self._copy_out = CopyOut(policy, root, settings.weights.keep, settings.actor.dtype)
        self._announced: PublishedPolicy | None = None
        self._thread = ThreadPoolExecutor(1, "announcing")
        self._announcing: Future[None] | None = None
        store = WeightStore(settings.weights.url or broker.url, broker.run, "learner")
        if settings.weights.url:
            store.fit()
        self._uploader = Uploader(store, define(settings, renderer.folder))
        self._ring = RingSender(WeightStore(broker.url, broker.run, "learner"))

    def publish(self, incarnation: int, step: int) -> None:
        """Copies the weights out, for the actors. A stop while the disk is full publishes nothing."""
        self.settle()
        copied = self._room.write(
            lambda: (self._copy_out.frozen(incarnation), *self._copy_out.version(incarnation, step))
        )
        if copied is None:
            return  # the checkpoint has this step; a resume publishes it
        frozen, draft, manifest = copied
        policy = PublishedPolicy(
            incarnation=incarnation,
            step=step,
            manifest=manifest,
            folder=str(draft.folder.resolve()),
            frozen=frozen,
            check_ids=self._check_ids,
            check_logprobs=self._policy.logprobs(self._check, 1.0),
        )
        self._announcing = self._thread.submit(self._announce, draft, policy)

    @property
    def figures(self) -> dict[str, float]:
        """Of the version that a broker was given last; empty where none was."""
        return self._uploader.figures

    @property
    def settled(self) -> bool:
        """Whether the last version that was copied out is announced: tickets of its step are for it."""
        return self._announcing is None or self._announcing.done()

    def settle(self) -> None:
        """Waits until it is. Raises what kept it from that."""
        if self._announcing:
            self._announcing.result()
        self._uploader.check()
        self._ring.check()

    def keep_up(self) -> None:
        """Announces the last version again if the broker does not know it any more, or knows another."""
        self._uploader.check()
        self._ring.check()
        if self.settled and self._announced and not _same(self._announced, self._broker.policy()):
            self._broker.announce(self._announced)

    def close(self, *, over: bool) -> None:
        self._ring.close()
        self._uploader.close(over=over)
        self._thread.shutdown()

    def _announce(self, draft: Draft, policy: PublishedPolicy) -> None:
        draft.publish()
        self._announced = policy
        self._broker.announce(policy)
        self._uploader.offer(policy)
        self._ring.offer(policy)


def _same(ours: PublishedPolicy, found: PublishedPolicy | None) -> bool:
    return found is not None and all(
        getattr(ours, name) == getattr(found, name) for name in ("incarnation", "step", "checksum", "folder")
    )
