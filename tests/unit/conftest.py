"""A disk small enough to fill."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, mounted in a namespace of its own: needs no root, and goes with its process."""
    disk = tmp_path / "disk"
    disk.mkdir()
    unshare = ["unshare", "--mount", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True, timeout=10).returncode:
        unshare.pop()  # root needs no user namespace, should these be forbidden
    mount = 'mount -t tmpfs -o size=4m tmpfs "$0" && echo mounted && exec cat'
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*unshare, "sh", "-c", mount, str(disk)], text=True, **pipes) as holder:
        if not holder.stdout.readline():
            pytest.fail(
                f"no small disk to fill: {holder.stderr.read().strip()}; allow user namespaces (sysctl "
                "kernel.apparmor_restrict_unprivileged_userns=0), in Docker with --security-opt seccomp=unconfined "
                "--cap-add SYS_ADMIN"
            )
        yield Path(f"/proc/{holder.pid}/root{disk}")  # the namespace as seen from here
