"""Fixtures that several integration tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny_models


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random policy."""
    return tiny_models.policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten chunks of a version of a few tensors, where real ones have sixty; and nobody waits long for the next."""
    from actors import downloads
    from common.weights import chunks
    from learner import uploader

    monkeypatch.setattr(chunks, "PIECE_BYTES", 4096)
    monkeypatch.setattr(uploader, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(downloads, "LOOK_EVERY_S", 0.01)
