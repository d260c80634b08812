"""What all ranks of a learner must have alike, and where one has it otherwise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from common import __version__
from common.models import identity, local_folder
from common.settings import Sections

_OWN = ("broker.url", "run.id")
"""Settings of rank 0 alone: nobody else speaks to the broker."""
_ROOT = Path(__file__).resolve().parents[1]


def facts(settings: Sections) -> dict[str, str]:
    """Key to value: every setting, the model behind `model.policy`, version and code of the project."""
    model = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    found = {
        "the version of hero-rl": f"{__version__}, code {_code()}",
        "the model of model.policy": identity("", model),
    }
    for section, values in settings.model_dump(mode="json").items():
        for name, value in values.items():
            if (key := f"{section}.{name}") not in _OWN:
                found[key] = repr(value)
    return found


def differences(ours: Mapping[str, str], theirs: Mapping[str, str], rank: int) -> list[str]:
    """One line for each key in which `rank` is not like rank 0, whose facts are `ours`."""
    return [
        f"{key} = {theirs.get(key, 'not there')} on rank {rank}, {ours.get(key, 'not there')} on rank 0"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _code() -> str:
    """Digest of what computes here: two checkouts may have one version."""
    found = hashlib.sha256()
    for folder in ("common", "learner"):
        for file in sorted((_ROOT / folder).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()[:12]
