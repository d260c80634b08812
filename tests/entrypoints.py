"""What a container of our image runs: the words after its entrypoint, read by `hero` itself."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common import config
from common.settings import Sections
from deploy import cli
from deploy.commands import COMMANDS

CONTAINERFILE = Path(__file__).parents[1] / "deploy" / "container" / "Containerfile"
ENTRYPOINT: list[str] = json.loads(re.findall(r"^ENTRYPOINT (.*)$", CONTAINERFILE.read_text(), re.M)[-1])


def after_tini(words: Sequence[str]) -> list[str]:
    assert list(words[:2]) == ["tini", "--"], words
    return list(words[2:])


def hero(words: Sequence[str]) -> list[str]:
    """The arguments of `hero`: alone, under torchrun, or at the end of a shell's line."""
    found = after_tini(words)
    if found[:2] == ["sh", "-c"]:
        found = shlex.split(found[2])
    assert "hero" in found, found
    return found[found.index("hero") + 1 :]


def settings_of(arguments: list[str], toml: str, folder: Path, patch: pytest.MonkeyPatch) -> Sections:
    """What `hero ARGUMENTS` would work with: arguments and file are read as always, and then nothing is started."""
    found: list[Sections] = []
    name = arguments[0]

    def start(parsed: Any, flags: list[str]) -> int:
        assert str(parsed.config) == "/etc/hero/run.toml"
        file = folder / "run.toml"
        file.write_text(toml)
        found.append(config.load(file, flags))
        return 0

    patch.setitem(COMMANDS, name, dataclasses.replace(COMMANDS[name], run=start))
    assert cli.main(arguments) == 0
    return found[0]
