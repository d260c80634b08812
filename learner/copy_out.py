"""The policy's weights, out of training's memory into files, tensor by tensor.

Under ZeRO-3 each is gathered, written and freed: there is never a whole copy beside the model. They are cast here: what
an actor would drop of a value need not travel. Of a policy with adapters these alone go out, and once what is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from common.schema import Frozen
from common.weights.folder import Draft, of, of_frozen, prune
from common.weights.manifest import Bytes, Layout, Manifest

_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}

Walk = Callable[[], Iterator[tuple[str, Tensor]]]


class Walked(Protocol):
    """`learner.team.Team`."""

    @property
    def adapter_scale(self) -> float | None: ...
    def named_weights(self) -> Iterator[tuple[str, Tensor]]: ...
    def frozen_weights(self) -> Iterator[tuple[str, Tensor]]: ...
    def adapter_weights(self) -> Iterator[tuple[str, Tensor]]: ...


class CopyOut:
    """Writes versions into `root`, of which `keep` stay, in `dtype` or a narrower one that the policy has."""

    def __init__(self, policy: Walked, root: Path, keep: int, dtype: str) -> None:
        self._policy, self._root, self._keep = policy, root, keep
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._layout: Layout | None = None
        self._frozen: tuple[int, Frozen] | None = None

    def version(self, incarnation: int, step: int) -> tuple[Draft, Manifest]:
        """What changes from step to step, written and neither durable nor named yet. Raises DiskFull, WeightsError."""
        walk = self._walk_weights if self._policy.adapter_scale is None else self._policy.adapter_weights
        self._layout = self._layout or _layout(walk)
        prune(self._root, self._keep - 1)
        draft = Draft(of(self._root, incarnation, step))
        return draft, _written(draft, self._layout, walk)

    def frozen(self, incarnation: int) -> Frozen | None:
        """What never changes, where that is anything: written once for an incarnation. Raises as `version`."""
        scale = self._policy.adapter_scale
        if scale is None:
            return None
        if self._frozen is None or self._frozen[0] != incarnation:
            draft = Draft(of_frozen(self._root, incarnation))
            manifest = _written(draft, _layout(self._walk_frozen), self._walk_frozen)
            self._frozen = incarnation, Frozen(manifest, str(draft.publish().resolve()), scale)
        return self._frozen[1]

    def _walk_weights(self) -> Iterator[tuple[str, Tensor]]:
        return self._narrowed(self._policy.named_weights())

    def _walk_frozen(self) -> Iterator[tuple[str, Tensor]]:
        return self._narrowed(self._policy.frozen_weights())

    def _narrowed(self, walk: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Not adapters: they are few, and their product would lose more than a weight does."""
        for name, weight in walk:
            wide = weight.is_floating_point() and weight.dtype.itemsize > self._dtype.itemsize
            yield name, weight.to(self._dtype) if wide else weight


def _layout(walk: Walk) -> Layout:
    return Layout.of((name, _NAMES[weight.dtype], tuple(weight.shape)) for name, weight in walk())


def _written(draft: Draft, layout: Layout, walk: Walk) -> Manifest:
    def tensors() -> Iterator[Bytes]:
        for _, weight in walk():
            yield weight.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()

    with closing(tensors()) as made:
        return draft.write(layout, made)
