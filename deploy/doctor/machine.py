"""What this machine has, read from the kernel: cores, memory, limits, file systems. A container's limits count."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """In bytes."""

    total: int
    available: int


@dataclass(frozen=True)
class Place:
    """Where a folder is, or would be made."""

    exists: Path
    """The folder, or the nearest above it that there is."""
    kind: str
    """Of the file system: tmpfs, ext4, nfs4, ..."""
    free: int
    """Bytes that we may write there."""


def cores(cgroup: Path = CGROUP) -> float:
    """Those that we may run on; a container's quota may be a part of one."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota, _, period = _line(cgroup / "cpu.max").partition(" ")
    return min(allowed, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else allowed


def memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> Memory:
    """Of the machine, or of the container when that may take less."""
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    total, available = (1024 * int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    limit = _line(cgroup / "memory.max")
    if limit.isdigit() and int(limit) < total:
        taken = _line(cgroup / "memory.current")
        left = int(limit) - (int(taken) if taken.isdigit() else 0)
        return Memory(int(limit), min(available, max(0, left)))
    return Memory(total, available)


def place(folder: Path, mounts: Path = Path("/proc/mounts")) -> Place:
    """Raises OSError for one that cannot be asked."""
    exists = folder.absolute()
    while not exists.exists() and exists != exists.parent:
        exists = exists.parent
    found = os.statvfs(exists)
    return Place(exists, _kind(exists.resolve(), mounts), found.f_bavail * found.f_frsize)


def _kind(folder: Path, mounts: Path) -> str:
    """By the longest mount point above it; the last of two at one point covers the other."""
    best, kind = -1, "unknown"
    for line in mounts.read_text().splitlines():
        _, point, name, *_ = line.split(" ")
        at = Path(point.encode().decode("unicode_escape"))
        if folder.is_relative_to(at) and len(at.parts) >= best:
            best, kind = len(at.parts), name
    return kind


def _line(file: Path) -> str:
    """What stands in a file of the kernel's; "" where there is none."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""
