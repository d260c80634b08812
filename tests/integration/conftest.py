"""Fixtures that several integration tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny_models


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random policy."""
    return tiny_models.policy(tmp_path_factory.mktemp("policy"))
