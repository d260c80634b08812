"""Policies of a known shape without a model: tensors of the usual size, and the same after one optimizer step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.weights.folder import Draft, of
from common.weights.manifest import Bytes, Layout
from tests.make import policy

STEP = 1e-6
"""What a step moves a value by, about: the learning rate of Adam."""
SIZES = {
    "135M": {"hidden": 576, "intermediate": 1536, "layers": 30, "kv": 192, "vocabulary": 49152},  # SmolLM2-135M
    "1B": {"hidden": 2048, "intermediate": 8192, "layers": 16, "kv": 512, "vocabulary": 128256},  # Llama-3.2-1B
}


def layout(size: str) -> Layout:
    """Tensors of a Llama of this size in bfloat16, the output head tied."""
    s = SIZES[size]
    hidden, wide = s["hidden"], s["intermediate"]
    shapes: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (s["vocabulary"], hidden))]
    for layer in range(s["layers"]):
        of = f"model.layers.{layer}"
        shapes += [
            (f"{of}.self_attn.{name}.weight", (rows, hidden))
            for name, rows in (("q_proj", hidden), ("k_proj", s["kv"]), ("v_proj", s["kv"]), ("o_proj", hidden))
        ]
        shapes += [(f"{of}.mlp.{name}.weight", (wide, hidden)) for name in ("gate_proj", "up_proj")]
        shapes += [(f"{of}.mlp.down_proj.weight", (hidden, wide))]
        shapes += [(f"{of}.{name}.weight", (hidden,)) for name in ("input_layernorm", "post_attention_layernorm")]
    return Layout.of((name, "BF16", shape) for name, shape in [*shapes, ("model.norm.weight", (hidden,))])


def tensors(size: str, steps: int) -> Iterator[Bytes]:
    """Of the policy after so many steps: bfloat16 as uint8. The same call gives the same."""
    for place, tensor in enumerate(layout(size).tensors):
        values = tensor.nbytes // tensor.item_bytes
        random = np.random.default_rng(place)
        made = random.standard_normal(values, np.float32)
        made *= 0.03
        for _ in range(steps):
            made += STEP * random.standard_normal(values, np.float32)
        yield np.ascontiguousarray(made.view(np.uint16)[1::2]).view(np.uint8)


def publish(root: Path, size: str, steps: int):  # type: ignore[no-untyped-def]
    """Policy in a folder under `root`."""
    draft = Draft(of(root, 1, steps))
    manifest = draft.write(layout(size), tensors(size, steps))
    return policy(1, steps, draft.publish(), manifest=manifest)
