"""What an actor needs beside weights: the model's definition, its tokenizer, the settings that all actors share.

For one that comes with nothing but a broker's address. No code: a model that needs its own is not defined by it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ModelError
from common.settings import Sections

MOST_BYTES = 64 * 2**20
SETTINGS = "settings"
"""Beside the names of files, none of which has no suffix."""

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}(\.[A-Za-z0-9_-]{1,32}){0,3}\.(json|txt|model|jinja)")
_SHARED = {
    "broker": ("claim_after_ms", "max_deliveries"),
    "data": ("max_prompt_tokens",),
    "sampling": ("completions", "max_tokens"),
    "actor": ("groups_in_flight", "dtype", "max_model_len", "kv_cache_gib", "max_logprob_difference"),
}
"""What actors take over; all else is the host's own."""


def define(settings: Sections, model: Path) -> dict[str, bytes]:
    """Name to content, of a model's folder. Raises ModelError when it is too large."""
    files = {f.name: f.read_bytes() for f in sorted(model.iterdir()) if f.is_file() and _FILE.fullmatch(f.name)}
    given = settings.model_dump(mode="json")
    shared = {section: {key: given[section][key] for key in keys} for section, keys in _SHARED.items()}
    found = files | {SETTINGS: json.dumps(shared).encode()}
    if (size := sum(map(len, found.values()))) > MOST_BYTES:
        raise ModelError(f"{model} defines its model in {size:,} bytes beside the weights, the limit is {MOST_BYTES:,}")
    return found


def shared_settings(found: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """What of a definition is settings. Raises ModelError for what `define` cannot have written."""
    try:
        given = json.loads(found[SETTINGS])
        return {section: {key: given[section][key] for key in keys} for section, keys in _SHARED.items()}
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(f"the settings in the broker are none of ours: {type(error).__name__}: {error}") from error


def unpack(found: Mapping[str, bytes], weights: Path, folder: Path) -> Path:
    """A model folder of a definition and a version's file, which stays readable here when the version goes.

    Raises ModelError for what is no definition; files of other names are left out.
    """
    if "config.json" not in found or sum(map(len, found.values())) > MOST_BYTES:
        raise ModelError(f"what the broker has is no definition of a model: {sorted(found)[:10]}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, content in found.items():
        if _FILE.fullmatch(name):
            (folder / name).write_bytes(content)
    os.link(weights, folder / weights.name)
    return folder
