"""The `hero` command as a child process: its settings from a file, its output into another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import ChildFailed
from deploy.children import Children
from deploy.experiments.hero_vs_baselines.protocol import Settings
from deploy.run_folder import write_atomically

LOOK_EVERY_S = 0.5


class Stopped(Exception):
    """Raised by a `look`: the user wants to stop."""


def hero(folder: Path, name: str, *arguments: object, look: Callable[[], object]) -> None:
    """Runs `hero ARGUMENTS` to its end, its output in `folder/NAME.log`; `look` is called meanwhile, and what that
    raises ends it.

    Raises ChildFailed with its last words.
    """
    children = Children(folder)
    children.start(name, list(map(str, arguments)), threads=1)
    try:
        while (code := children.exit_code(name)) is None:
            look()
            time.sleep(LOOK_EVERY_S)
    finally:
        children.stop()
    if code:
        words = children.last_words(name)
        raise ChildFailed(f"`hero {arguments[0]}` ended with exit code {code}; {folder / name}.log ends in:\n{words}")


def keep(settings: Settings, file: Path) -> Path:
    """Settings as a file for `hero`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(settings, indent=1))
    return file
