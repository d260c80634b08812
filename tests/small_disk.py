"""A disk small enough to fill."""

from __future__ import annotations

import subprocess
from pathlib import Path


class SmallDisk:
    """A file system in memory, mounted in a namespace of its own: needs no root, and goes with its process."""

    def __init__(self, mount_point: Path, megabytes: int) -> None:
        mount_point.mkdir()
        unshare = ["unshare", "--mount", "--map-root-user"]
        if subprocess.run([*unshare, "true"], capture_output=True, timeout=60).returncode:
            unshare.pop()  # root needs no user namespace, should these be forbidden
        mount = f'mount -t tmpfs -o size={megabytes}m tmpfs "$0" && echo mounted && exec cat'
        self._holder = subprocess.Popen(
            [*unshare, "sh", "-c", mount, str(mount_point)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout and self._holder.stderr
        if not self._holder.stdout.readline():
            raise RuntimeError(
                f"no small disk to fill: {self._holder.stderr.read().strip()}; allow user namespaces (sysctl "
                "kernel.apparmor_restrict_unprivileged_userns=0), in Docker with --security-opt seccomp=unconfined "
                "--cap-add SYS_ADMIN"
            )
        self.folder = Path(f"/proc/{self._holder.pid}/root{mount_point}")
        """The namespace as seen from outside."""

    def fill(self) -> None:
        """Takes what is left."""
        with (self.folder / "ballast").open("ab", buffering=0) as ballast:
            try:
                while ballast.write(b"\0" * 2**16):
                    pass
            except OSError:  # ENOSPC, which is what we want
                return

    def free(self) -> None:
        """Gives it back."""
        (self.folder / "ballast").unlink(missing_ok=True)

    def close(self) -> None:
        self._holder.communicate()
