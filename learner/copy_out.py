"""The policy's weights, out of training's memory into the file of a new version, tensor by tensor.

Under ZeRO-3 each is gathered, written and freed: there is never a whole copy beside the model. They are cast here: what
an actor would drop of a value need not travel.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from common.weights.folder import Draft, prune
from common.weights.manifest import Bytes, Layout, Manifest

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


class Walked(Protocol):
    """`learner.policy.Policy`, or a team of them."""

    def named_weights(self) -> Iterator[tuple[str, Tensor]]: ...


class CopyOut:
    """Writes versions into `root`, of which `keep` stay, in `dtype` or a narrower one that the policy has."""

    def __init__(self, policy: Walked, root: Path, keep: int, dtype: str) -> None:
        self._policy, self._root, self._keep = policy, root, keep
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._layout: Layout | None = None

    def __call__(self, incarnation: int, step: int) -> tuple[Draft, Manifest]:
        """A version that is written and neither durable nor named yet. Raises DiskFull, WeightsError."""
        if self._layout is None:
            walk = self._policy.named_weights()
            self._layout = Layout.of((name, _NAMES[self._cast(weight)], tuple(weight.shape)) for name, weight in walk)
        prune(self._root, self._keep - 1)
        draft = Draft(self._root, incarnation, step)
        with closing(self._tensors()) as tensors:
            return draft, draft.write(self._layout, tensors)

    def _tensors(self) -> Iterator[Bytes]:
        for _, weight in self._policy.named_weights():
            yield weight.detach().to("cpu", self._cast(weight)).contiguous().reshape(-1).view(torch.uint8).numpy()

    def _cast(self, weight: Tensor) -> torch.dtype:
        wide = weight.is_floating_point() and weight.dtype.itemsize > self._dtype.itemsize
        return self._dtype if wide else weight.dtype
