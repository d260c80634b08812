"""Where a model's files are: a local folder, or a hub name resolved to one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from common.errors import ModelError

SAMPLED_BYTES = 2**20


def local_folder(model: str, setting: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """Folder with the model's files; a hub name is downloaded, or taken from the hub's cache.

    `setting` is named in the error; `weights`: whether they are needed too. Raises ModelError with the remedy.
    """
    if not model:
        raise ModelError(f"{setting} is not set: give a folder in Hugging Face layout, or a hub name")
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{setting} = {model}: the folder has no config.json; it is not a model in Hugging Face layout"
            )
        return folder
    if folder.is_absolute() or model.count("/") != 1 or model.startswith("."):
        raise ModelError(
            f"{setting} = {model}: there is no such folder; `hero sft` and `hero rm` make one, or give a hub name"
        )
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.model", "*.jinja", *(["*.safetensors"] if weights else [])]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub client raises a dozen unrelated kinds
        raise ModelError(
            f"{setting} = {model}: neither a folder here nor to be had from the hub ({type(error).__name__}: "
            f"{str(error).splitlines()[0][:200]}); check the name, or download it on a host with network"
        ) from error


def check_vocabulary(folder: Path, vocabulary: Mapping[str, int], embeddings: int) -> int:
    """The highest token id of a tokenizer. Raises ModelError when the model has no embedding for it."""
    highest = max(vocabulary.values(), default=-1)
    if highest >= embeddings:
        raise ModelError(
            f"the tokenizer in {folder} has token id {highest}, but the model only {embeddings} "
            "embeddings; use the tokenizer that the model was trained with"
        )
    return highest


def identity(model: str, folder: Path) -> str:
    """Model and revision for the record: `nvidia/AceMath-7B-RM@1a2b3c4d5e6f`.

    The revision is the hub's commit; of a folder of one's own, a digest of config.json and of each weights file's size,
    first and last MiB: enough to tell two trainings apart, without reading gigabytes.
    """
    if folder.parent.name == "snapshots":  # the hub's cache
        return f"{model}@{folder.name[:12]}"
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as weights:
            digest.update(weights.read(SAMPLED_BYTES))
            weights.seek(max(0, size - SAMPLED_BYTES))
            digest.update(weights.read(SAMPLED_BYTES))
    return f"{folder.name}@{digest.hexdigest()[:12]}"
