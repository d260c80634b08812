"""A learner without a model: it makes versions of a few tensors, and puts them into a broker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.schema import Policy
from common.weights import fetch, folder
from common.weights.folder import FILE, Draft, of
from common.weights.manifest import Bytes, Layout
from common.weights.store import WeightStore
from learner.uploader import Uploader
from tests.make import policy
from tests.until import until

LAYOUT = Layout.of(
    [
        ("embed", "BF16", (300, 64)),
        ("norm", "F32", (64,)),
        ("none", "BF16", (0,)),
        ("scale", "F16", ()),
        ("head", "F32", (9, 64)),
    ]
)


@dataclass
class Learner:
    """Makes versions, and puts them into the broker."""

    root: Path
    store: WeightStore
    incarnation: int = 1
    step: int = -1
    tensors: list[Bytes] = field(default_factory=lambda: [np.zeros(t.nbytes, np.uint8) for t in LAYOUT.tensors])
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def __post_init__(self) -> None:
        self.uploader = Uploader(self.store, {"config.json": b"{}"})

    def make(self, share: float = 0.02) -> Policy:
        """The next version: this share of the bytes is another."""
        self.step += 1
        for tensor in self.tensors:
            places = self.random.random(len(tensor)) < (share if self.step else 1.0)
            tensor[places] = self.random.integers(0, 256, int(places.sum()), np.uint8)
        folder.prune(self.root, 2)
        draft = Draft(of(self.root, self.incarnation, self.step))
        manifest = draft.write(LAYOUT, self.tensors)
        return policy(self.incarnation, self.step, draft.publish(), manifest=manifest)

    def carry(self, made: Policy | None = None) -> Policy:
        """The next version, in the broker, from which all has gone that it replaces."""
        made = made or self.make()
        self.uploader.offer(made)

        def there() -> bool:
            self.uploader.check()
            self.store.want()  # again and again, as an actor does
            carried = self.uploader._carried
            return carried is not None and version(carried.policy) == version(made)

        until(there, "the version in the broker")
        return made


def version(policy: Policy) -> tuple[int, int]:
    return policy.incarnation, policy.step


def same(path: Path, made: Policy) -> bool:
    return (path / FILE).read_bytes() == (Path(made.folder) / FILE).read_bytes()


def fetched(store: WeightStore, root: Path, go_on: Callable[[], bool] = lambda: True) -> Path:
    carried = store.carried()
    assert carried
    return Path(fetch.fetch(store, carried, root, go_on).folder)
