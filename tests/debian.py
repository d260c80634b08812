"""Programs of Debian that tests need: those on PATH, else unpacked from their packages beside the system."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

UNPACKED = Path.home() / ".cache" / "hero-rl-tests"
_MISSING = re.compile(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", re.M)


def program(name: str, package: str) -> str:
    """Its path. Raises AssertionError with the remedy where there is neither program nor package."""
    if found := shutil.which(name):
        return found
    with _folder(package) as folder:
        path = folder / "usr" / "bin" / name
        if not path.is_file():
            _unpack([package], folder)
    return str(path)


def unpacked(package: str) -> Path:
    """The root of a package and of all packages that it needs and this machine lacks; `environment` makes it run.

    Raises AssertionError with the remedy where there is no such package.
    """
    with _folder(package) as folder:
        done = folder / ".done"
        if not done.is_file():
            _unpack(_lacking(package), folder)
            done.touch()
    return folder


def environment(root: Path) -> dict[str, str]:
    """What programs in an unpacked root need to find its libraries, and its fonts where the system has none."""
    folders = sorted({str(file.parent) for place in ("lib", "usr/lib") for file in root.glob(f"{place}/**/*.so*")})
    found = {"LD_LIBRARY_PATH": ":".join(folders)}
    if (fonts := root / "usr/share/fonts").is_dir() and not Path("/etc/fonts/fonts.conf").is_file():
        file = root / "fonts.conf"
        file.write_text(f"<fontconfig><dir>{fonts}</dir><cachedir>{root / 'font-cache'}</cachedir></fontconfig>")
        found["FONTCONFIG_FILE"] = str(file)
    return found


@contextmanager
def _folder(package: str) -> Iterator[Path]:
    """Where it is unpacked, for this process alone: tests run in several."""
    folder = UNPACKED / package
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _lacking(package: str) -> list[str]:
    """What apt would install for it, as `name=version`; it asks for no rights to tell."""
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", package]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = [f"{name}={version}" for name, version in _MISSING.findall(told.stdout)]
    assert found, f"{package} cannot be had: apt-get update && apt-get install {package}; {told.stderr[-500:]}"
    return found


def _unpack(packages: Sequence[str], folder: Path) -> None:
    loaded = subprocess.run(["apt-get", "download", *packages], cwd=folder, capture_output=True, text=True, timeout=600)
    names = ", ".join(packages)
    assert not loaded.returncode, f"{names} missing: apt-get update && apt-get install {names}; {loaded.stderr[-500:]}"
    for file in sorted(folder.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(file), str(folder)], check=True, timeout=300)
        file.unlink()
