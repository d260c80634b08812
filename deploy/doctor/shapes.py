"""The shapes of a run's models, from their config.json alone: without weights, without importing transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from common.errors import ModelError
from common.models import local_folder
from deploy.doctor.case import Case
from learner.flops import Shape, shape_of

UNKNOWN = "the sizes of the models are not known: see `policy` and `reward_model`"


def policy_folder(case: Case) -> Path:
    """The policy's files but for its weights. Raises ModelError."""
    return local_folder(case.settings.model.policy, "model.policy", case.settings.model.revision, weights=False)


def reward_model_folder(case: Case) -> Path:
    """As `policy_folder`."""
    r = case.settings.reward_model
    return local_folder(r.model or "", "reward_model.model", r.revision, weights=False)


def policy_shape(case: Case) -> Shape | None:
    """None for one that cannot be had, which is the finding of `policy`, and for another kind, with experts say."""
    return _shape(case, policy_folder)


def reward_model_shape(case: Case) -> Shape | None:
    """As `policy_shape`; a classifier has one row for an output layer."""
    found = _shape(case, reward_model_folder)
    return replace(found, tied=True) if found and case.settings.reward_model.backend == "classifier" else found


def _shape(case: Case, folder: Callable[[Case], Path]) -> Shape | None:
    try:
        return shape_in(folder(case))
    except ModelError:
        return None


def shape_in(folder: Path) -> Shape | None:
    """Of the text model in a folder. Raises ModelError."""
    try:
        given = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        text = given.get("text_config", given)
        return shape_of(SimpleNamespace(**{"tie_word_embeddings": given.get("tie_word_embeddings", True)} | text))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}; copy the model's own files") from error
