"""The reference policy of the KL penalty: the model that the run began with, frozen."""

from __future__ import annotations

from pathlib import Path

import torch

from learner import export
from learner.logprobs import CompletionLogprobs


def load_reference(folder: Path, dtype: str, device: torch.device) -> CompletionLogprobs:
    """The model of `folder` as the policy's forward has it, without gradients; ModelError as `export.load_model`.

    A whole copy on each rank, also under ZeRO-3, which cuts the policy alone: 4 bytes a parameter in float32,
    2 in bfloat16, with neither gradients nor optimizer states. With adapters none is needed.
    """
    return CompletionLogprobs(export.load_model(folder, dtype)).to(device).requires_grad_(False).eval()
