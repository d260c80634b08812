"""State of the random generators of this process as JSON: python, numpy, torch and its GPU."""

from __future__ import annotations

import base64
import json
import random
from pathlib import Path

import numpy as np
import torch


def seed(value: int) -> None:
    """Seed every generator."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def save(path: Path) -> None:
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": _encode(torch.get_rng_state()),
        "cuda": [_encode(part) for part in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    }
    path.write_text(json.dumps(state))


def load(path: Path) -> None:
    """Restore what `save` wrote. GPU generators are restored where their number is the same."""
    state = json.loads(path.read_text())
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_decode(state["torch"]))
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([_decode(part) for part in state["cuda"]])


def _encode(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _decode(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
