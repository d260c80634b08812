"""How much of what is computed is padding: of the tokens, and of attention's, which pads packed sequences again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from learner.batch import MicroBatch

_LIKE = 0.9  # at most a tenth of an attention is padding, half of that on average, and few calls are needed


def like_widths(widths: npt.NDArray[np.int64]) -> list[slice]:
    """Neighbours of some in order whose attention is computed together, each padded to the widest of its run."""
    runs, first, least, most = [], 0, int(widths[0]), int(widths[0])
    for place, width in enumerate(widths.tolist()):
        least, most = min(least, width), max(most, width)
        if least < _LIKE * most:
            runs.append(slice(first, place))
            first, least, most = place, width, width
    return [*runs, slice(first, len(widths))]


def padding_share(batches: Iterable[MicroBatch]) -> float:
    """Share of the computed tokens that are padding, in [0, 1)."""
    batches = list(batches)
    computed = sum(batch.input_ids.size for batch in batches)
    return 1.0 - sum(batch.real_tokens for batch in batches) / computed


def attention_padding_share(batches: Iterable[MicroBatch]) -> float:
    """The same share of what attention computes: whole sequences, the packed ones padded among their likes."""
    batches = list(batches)
    return 1.0 - sum(batch.sequence_tokens for batch in batches) / sum(map(_attended, batches))


def _attended(batch: MicroBatch) -> int:
    if batch.row is None:
        return batch.input_ids.size
    widths = -np.sort(-batch.row.widths)
    return sum(len(widths[run]) * int(widths[run][0]) for run in like_widths(widths))
