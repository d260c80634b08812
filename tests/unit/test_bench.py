"""The benches: each that is listed can be run, and every module of theirs still finds what it imports."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from tests import bench
from tests.bench.__main__ import BENCHES

MODULES = [module.name for module in pkgutil.walk_packages(bench.__path__, "tests.bench.")]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_imported(name: str) -> None:
    import_module(name)


@pytest.mark.parametrize("listed", BENCHES.values(), ids=BENCHES)
def test_a_bench_can_be_run(listed: object) -> None:
    assert callable(import_module(f"tests.bench.{listed.module}").run)  # type: ignore[attr-defined]
