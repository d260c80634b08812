"""Fixtures that several suites share: a real server, a run of its own for every test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from common.server import LocalServer
from common.streams import Broker


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
