"""Models in and out as Hugging Face folders."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from common.disk import is_full
from common.errors import DiskFull, ModelError

# Tokenizer, chat template and generation defaults travel as they are: saving them anew would change them.
_COMPANIONS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")


def load_model(folder: Path, dtype: str) -> nn.Module:
    """Causal LM of `folder` with weights of `dtype` ("float32", "bfloat16") and no dropout.

    Dropout is off for good: with it the learner's log-probabilities would not be the sampler's. Neither would they be
    if torch's attention left out the soft cap that some models have (Gemma 2); those take transformers' slower one.
    Raises ModelError when the folder is missing or holds something else.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json; model must name a Hugging Face model folder")
    try:
        config = AutoConfig.from_pretrained(folder)
        for name, value in vars(config).items():
            if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                setattr(config, name, 0.0)
        capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
        model: nn.Module = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=getattr(torch, dtype), attn_implementation="eager" if capped else None
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{folder} cannot be loaded as a causal LM: {error}") from error
    return model


def write(folder: Path, model: Any, weights: dict[str, Tensor], source: Path) -> None:
    """Config and `weights` (by Hugging Face name, tied ones once) to `folder`, with `source`'s tokenizer.

    Raises DiskFull; what is there then is to be written again.
    """
    try:
        model.save_pretrained(folder, state_dict=weights)
        for pattern in _COMPANIONS:
            for path in source.glob(pattern):
                if not path.name.endswith(".index.json") and not (folder / path.name).exists():
                    shutil.copyfile(path, folder / path.name)
    except Exception as error:
        if is_full(error, folder):
            raise DiskFull(f"no space left for the export into {folder}; free some") from error
        raise
