"""The models that `hero eval` is given: folders, hub names, runs; each with a short name of its own."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import ConfigError, ModelError
from common.models import local_folder
from common.settings.evaluation import NAME


def named(given: Sequence[str]) -> dict[str, Path]:
    """Name to folder, in order. `NAME=MODEL` gives a name; without it a model is called after its folder.

    Raises ConfigError for one name or model twice, ModelError for what is no model.
    """
    pairs = [_split(one) for one in given]
    folders = [model_folder(model) for _, model in pairs]
    own = short_names([Path(model).expanduser() for _, model in pairs])
    names = [name or short for (name, _), short in zip(pairs, own, strict=True)]
    for what, all_of_them in (("name", names), ("model", [str(folder.resolve()) for folder in folders])):
        if twice := [one for one, times in Counter(all_of_them).items() if times > 1]:
            raise ConfigError(
                f"{twice[0]} is given twice: give each {what} once; NAME=MODEL tells two models apart, and to evaluate "
                "one anew give another --out"
            )
    return dict(zip(names, folders, strict=True))


def model_folder(given: str) -> Path:
    """Folder in Hugging Face layout: the given one, that of a hub name, or the export of a run."""
    path = Path(given).expanduser()
    if (path / "run.json").is_file():
        if not (path / "export" / "config.json").is_file():
            raise ModelError(
                f"run {given} has no export yet, which is written when it ends: let it end (`hero up` with a smaller "
                "--run.steps ends it early), or name the model that it began with"
            )
        path = path / "export"
        given = str(path)
    elif path.name == "checkpoints" or any((at / "manifest.json").is_file() for at in (path, path.parent)):
        raise ModelError(
            f"{given} is a checkpoint of DeepSpeed, which no engine reads: name a folder of RUN/exports "
            "(learner.export_every_steps makes them), or let the run end (`hero up` with --run.steps at this step or "
            "above), which exports the model, and name the run's folder"
        )
    folder = local_folder(given, "MODEL")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"MODEL = {given}: the folder has no *.safetensors; save the model with save_pretrained")
    return folder


def refuse_short_context(models: Mapping[str, Path], max_model_len: int) -> None:
    """Raises ConfigError before an engine is started for a model that holds fewer tokens than that."""
    for name, folder in models.items():
        try:
            config = json.loads((folder / "config.json").read_text())
            longest, rope = config.get("max_position_embeddings"), config.get("rope_scaling")
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(f"config.json of {folder} cannot be read: {error}; save the model again") from error
        if isinstance(longest, int) and longest < max_model_len and not rope:
            raise ConfigError(
                f"{name} has a context of {longest} tokens, actor.max_model_len = {max_model_len}: lower that, with "
                "sampling.max_tokens and data.max_prompt_tokens, or name the settings of its run by --config"
            )


def run_settings(given: Sequence[str]) -> Path | None:
    """The settings of the first run among the models."""
    folders = [Path(_split(one)[1]).expanduser() for one in given]
    return next((f / "settings.json" for f in folders if (f / "run.json").is_file()), None)


def _split(given: str) -> tuple[str | None, str]:
    name, _, model = given.partition("=")
    if model and NAME.fullmatch(name) and not Path(given).exists():
        return name, model
    return None, given


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each path; where that is one name for several, the part before it too."""
    last = [path.name or path.resolve().name for path in paths]
    return [
        f"{path.resolve().parent.name}-{name}" if last.count(name) > 1 else name
        for path, name in zip(paths, last, strict=True)
    ]
