"""Whether a model may be given packed sequences: found out when it is loaded, by its config and by trying."""

from __future__ import annotations

from typing import Any

import numpy as np
import structlog
import torch

from learner.attention import NAME, Segments
from learner.rows import Row

log = structlog.get_logger(__name__)

_ROW = Row(widths=np.array([9, 7, 4]), shared=np.array([0, 5, 0]))
_TOLERANCE = 1e-3  # of what attention across sequences changes; float32 rounds to 1e-7 of it
_COARSE_TOLERANCE = 0.1  # bfloat16 rounds to 1e-2 of it, a layer that mixes sequences changes all of it


def enable_packing(model: Any) -> bool:
    """Give `model` (a Hugging Face causal LM) our attention if packed sequences then mean what single ones do.

    Otherwise it stays as it was. The log says which, and why.
    """
    reason = _obstacle(model)
    if reason:
        log.info("sequences are padded to like lengths, not packed", reason=reason)
    else:
        log.info("sequences are packed")
    return not reason


def _obstacle(model: Any) -> str:
    """Why `model` cannot be packed, or nothing; then it has our attention."""
    config = model.config.get_text_config()
    # Windows and chunks are longer than the sequences that are tried, so trying would not show them.
    layers = set(getattr(config, "layer_types", None) or ())
    limits = () if layers else ("sliding_window", "attention_chunk_size")
    special = sorted(layers - {"full_attention"}) + [name for name in limits if getattr(config, name, None) is not None]
    if special:
        return f"the model has {', '.join(special)}"
    if not model.is_backend_compatible():
        return "the model takes no attention but its own"
    before = config._attn_implementation
    try:
        reason = _difference(model)
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = f"a packed row cannot be computed: {error}"
    if reason:
        model.set_attn_implementation(before)
    return reason


@torch.no_grad()
def _difference(model: Any) -> str:
    """How packed sequences, two of one prompt, differ from single ones, or nothing; leaves the model our attention."""
    weight = model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(weight.shape[0], (1, int(_ROW.own.sum())), generator=generator).to(weight.device)
    places = torch.from_numpy(_ROW.places).to(weight.device)
    parts = tokens[:, places].split(_ROW.widths.tolist(), dim=1)
    single = torch.cat([model(input_ids=part, use_cache=False).logits for part in parts], dim=1).float()
    model.set_attn_implementation(NAME)
    segments = Segments.of(_ROW, weight.device)

    def distance(borders: Segments | None) -> float:
        row = {"input_ids": tokens, "position_ids": segments.position_ids, "segments": borders}
        logits = model(**row, use_cache=False).logits[:, places].float()
        return float((logits - single).square().mean().sqrt())

    apart, together = distance(segments), distance(None)
    if apart <= together * (_TOLERANCE if weight.dtype == torch.float32 else _COARSE_TOLERANCE):
        return ""
    return f"packed logits differ from those of single sequences by {apart:.1e}, without any borders by {together:.1e}"
