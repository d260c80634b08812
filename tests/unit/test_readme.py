"""README.md against the code: its files with what they say of themselves, its settings, its commands."""

from __future__ import annotations

import ast
import re
import shlex
from collections import Counter
from pathlib import Path

import pytest

from common import config
from common.settings import Sections
from deploy.arguments import parser
from deploy.cli import settings_apart
from deploy.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PACKAGES = ("actors", "common", "deploy", "learner", "scorer")
FILES = {"json", "jsonl", "png", "py", "sh"}
"""Endings: `rm.json` is no setting."""


def rows() -> list[tuple[str, str]]:
    """(path, what is said of it) of each row under Layout."""
    found, folder = [], ""
    for line in README.partition("## Layout")[2].partition("\n## ")[0].splitlines():
        if head := re.match(r"\*\*(\S+)/\*\*", line):
            folder = head[1]
        elif row := re.fullmatch(r"\| (.+?) \| (.+) \|", line):
            found += [(f"{folder}/{name}", row[2]) for name in row[1].replace("\\", "").split(", ")]
    return found


def modules() -> dict[str, str]:
    """Path to the beginning of its docstring; those of the settings have a sentence of their own."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    return {
        path.relative_to(ROOT).as_posix(): " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
        for path in paths
        if path.parent.name != "settings"
    }


def commands() -> list[str]:
    """Each `hero ...` in a block of commands; ... stands for what a reader puts there."""
    blocks = "\n".join(text for kind, text in re.findall(r"^```(\w*)\n(.*?)^```", README, re.S | re.M) if not kind)
    return [one.strip() for one in re.findall(r"^(?:\$ |.* --no.python |\S+/)?(hero [^#>\n]+)", blocks, re.M)]


def test_every_module_is_there_once_and_says_of_itself_what_the_readme_says() -> None:
    told, there = rows(), modules()
    assert not [path for path, count in Counter(path for path, _ in told).items() if count > 1]
    assert not [path for path, _ in told if not (ROOT / path).is_file()]
    assert not there.keys() - {path for path, _ in told}
    unlike = [path for path, text in told if path in there and not f"{there[path]} ".startswith(f"{text} ")]
    assert not unlike


def test_every_setting_that_it_names_is_one() -> None:
    names = re.findall(rf"`(?:--)?({'|'.join(Sections.model_fields)})\.(\w+)(?: = [^`]+)?`", README)
    assert len(names) > 50
    sections = {name: field.annotation for name, field in Sections.model_fields.items()}
    unknown = [
        f"{section}.{key}"
        for section, key in names
        if key not in FILES
        and not (ROOT / section / f"{key}.py").is_file()
        and key not in getattr(sections[section], "model_fields", {})
    ]
    assert not unknown


@pytest.mark.parametrize("command", commands())
def test_every_command_is_understood(command: str) -> None:
    _, name, *words = shlex.split(command)
    settings, others = settings_apart(words)
    _, unknown = parser(name, COMMANDS[name], with_settings=False).parse_known_args(others)
    assert not unknown
    config.load(None, settings)


def test_every_file_that_it_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", README)
    assert links and not [link for link in links if not (ROOT / link).exists()]
