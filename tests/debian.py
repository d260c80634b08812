"""Programs of Debian that tests need: those on PATH, else unpacked from their packages beside the system."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

UNPACKED = Path.home() / ".cache" / "hero-rl-tests"


def program(name: str, package: str) -> str:
    """Its path. Raises AssertionError with the remedy where there is neither program nor package."""
    if found := shutil.which(name):
        return found
    folder = UNPACKED / package
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = folder / "usr" / "bin" / name
        if not path.is_file():
            _unpack(package, folder)
    return str(path)


def _unpack(package: str, folder: Path) -> None:
    loaded = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, text=True, timeout=300)
    packages = sorted(folder.glob("*.deb"))
    assert packages, f"{package} is missing: apt-get update && apt-get install {package}; {loaded.stderr[-500:]}"
    subprocess.run(["dpkg", "-x", str(packages[-1]), str(folder)], check=True, timeout=300)
