"""The settings of runs as rows of tables: what they differ in, and what is not the default. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from common.address import shown
from common.settings import Sections
from common.untrusted import printable
from deploy.report.recording import Recording

Rows = list[list[str]]
VALUE_CHARS = 160
UNSET = "unset"


def differing(runs: Sequence[Recording]) -> Rows:
    """Settings in which the runs differ: key, default, a value for each run."""
    return [row for row in _settings(runs) if len(set(row[2:])) > 1]


def changed(runs: Sequence[Recording]) -> Rows:
    """Settings that any run has otherwise than by default."""
    return [row for row in _settings(runs) if set(row[2:]) - {row[1], UNSET}]


def _settings(runs: Sequence[Recording]) -> Rows:
    default = {
        f"{section}.{key}": value
        for section, keys in Sections().model_dump(mode="json").items()
        for key, value in keys.items()
    }
    known = [run.settings for run in runs]
    keys = sorted({key for settings in known for key in settings})
    return [
        [
            printable(key),
            written(default[key]) if key in default else "",
            *(written(settings[key]) if key in settings else UNSET for settings in known),
        ]
        for key in keys
    ]


def written(value: object) -> str:
    """A value as a person would write it, shortened; of an address nothing that is secret."""
    text = value if isinstance(value, str) else "-" if value is None else json.dumps(value, ensure_ascii=False)
    text = printable(shown(text))
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]}..."
