"""Fixtures that several suites share: a real server, a run of its own for every test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from common.server import LocalServer
from common.streams import Broker
from tests.small_disk import SmallDisk

# An example may take long on a loaded machine without anything being wrong.
settings.register_profile("hero", deadline=None)
settings.load_profile("hero")


@pytest.fixture(autouse=True)
def _own_logs() -> Iterator[None]:
    """What a test sets up for logging ends with it: pytest closes the stream that it logged to."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("broker"), memory_mb=256) as running:
        yield running


@pytest.fixture
def run_id() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def broker(server: LocalServer, run_id: str) -> Broker:
    connected = Broker(server.url, run_id, "test")
    connected.check()
    return connected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 16 MiB."""
    disk = SmallDisk(tmp_path / "disk", megabytes=16)
    yield disk
    disk.close()
