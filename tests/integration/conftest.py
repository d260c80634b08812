"""Fixtures that several integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.streams import Broker
from common.weights.store import WeightStore
from tests import tiny_models
from tests.integration.carrying import Learner

if TYPE_CHECKING:
    from tests.integration.learning import Bench
from tests.integration.guarded import Guarded, guard


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random policy."""
    return tiny_models.policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server behind TLS with the users of `hero acl`, who reach runs whose id begins with ours-."""
    with guard(tmp_path_factory.mktemp("guarded"), "ours-*") as made:
        yield made


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten chunks of a version of a few tensors, where real ones have sixty; and nobody waits long for the next."""
    from actors import downloads
    from common.weights import chunks
    from learner import uploader

    monkeypatch.setattr(chunks, "PIECE_BYTES", 4096)
    monkeypatch.setattr(uploader, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(downloads, "LOOK_EVERY_S", 0.01)


@pytest.fixture
def learner(broker: Broker, tmp_path: Path) -> Iterator[Learner]:
    """One without a model, of whom some actor wants weights."""
    made = Learner(tmp_path / "learner", WeightStore(broker.url, broker.run, "learner"))
    made.store.want()
    yield made
    made.uploader.close(over=False)


@pytest.fixture
def bench(broker: Broker, model: Path, tmp_path: Path) -> Iterator[Bench]:
    """A run folder and a broker for real learners."""
    from tests.integration import learning

    made = learning.Bench(broker, model, tmp_path)
    yield made
    made.close()
