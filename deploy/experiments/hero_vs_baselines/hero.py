"""The `hero` command as a child process: its settings from a file, its output into another, its progress handed on."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import ChildFailed
from common.lifecycle import die_with_parent
from deploy.experiments.hero_vs_baselines.protocol import Settings
from deploy.run_folder import write_atomically

LOOK_EVERY_S = 0.5
LEAVES_S = 30.0
"""A child that is asked to leave has so long."""
LAST_CHARS = 1500


class Stopped(Exception):
    """Raised by a `look`: the user wants to stop."""


def hero(log: Path, *arguments: object, look: Callable[[], object]) -> None:
    """Runs `hero ARGUMENTS` to its end, calling `look` meanwhile; what that raises ends it.

    Raises ChildFailed with its last words.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "deploy.cli", *map(str, arguments)]
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=die_with_parent,
            start_new_session=True,
        )
        try:
            while (code := child.poll()) is None:
                look()
                time.sleep(LOOK_EVERY_S)
        finally:
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(LEAVES_S)
                except subprocess.TimeoutExpired:
                    child.kill()
    if code:
        words = log.read_text(errors="replace")[-LAST_CHARS:]
        raise ChildFailed(
            f"`hero {' '.join(map(str, arguments))}` ended with exit code {code}; {log} ends in:\n{words}"
        )


def keep(settings: Settings, file: Path) -> Path:
    """Settings as a file for `hero`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(settings, indent=1))
    return file
