"""Advantages of a batch from verdicts and reward-model scores apart, each normalized on its own. Pure.

An alternative to HERO's shaped reward: of it neither the bands (Eq. 3) nor the weight (Eq. 4) has a part here.
Everywhere `correct` is bool [N] and `scores` finite float64 [N] for each of one or more groups; the advantages are
float64 [N] for each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learner.normalize import Floats, normalized

Bools = NDArray[np.bool_]


def gdpo(
    correct: Sequence[Bools], scores: Sequence[Floats], verifier_weight: float = 1.0, rm_weight: float = 1.0
) -> list[Floats]:
    """GDPO (arXiv:2601.05242): A_k = (r_k - mean) / (std + 1e-6) of each reward k in its group, A = sum of w_k A_k,
    then whitened over the batch: (A - mean) / (std + 1e-6) over all of its completions.
    """
    sums = [
        verifier_weight * normalized(c.astype(np.float64)) + rm_weight * normalized(s)
        for c, s in zip(correct, scores, strict=True)
    ]
    return np.split(normalized(np.concatenate(sums)), np.cumsum([len(group) for group in sums])[:-1])


def dara(
    correct: Sequence[Bools],
    scores: Sequence[Floats],
    verifier_weight: float = 1.0,
    rm_weight: float = 1.0,
    cap: float = 3.0,
) -> list[Floats]:
    """DARA (arXiv:2610.00574): `gdpo` with each weight times min(cap, sqrt(pi_ref / pi_k)).

    pi_k is the share of groups in which reward k is not constant, and so the share in which it teaches anything. pi_ref
    is ours to choose: the larger of the two, so that the denser reward keeps its weight and the sparser one gains.
    """
    live = [_live_share(correct), _live_share(scores)]
    factors = [min(cap, math.sqrt(max(live) / pi)) if pi > 0 else 1.0 for pi in live]
    return gdpo(correct, scores, verifier_weight * factors[0], rm_weight * factors[1])


def _live_share(rewards: Sequence[NDArray[Any]]) -> float:
    """Share of groups in which a reward is not the same for all."""
    return sum(bool((r != r[0]).any()) for r in rewards) / len(rewards)


def papo(correct: Sequence[Bools], scores: Sequence[Floats], process_weight: float = 1.0) -> list[Floats]:
    """PAPO (arXiv:2603.26535): A = A_outcome + process_weight * A_process.

    A_outcome is the verdict normalized in its group, A_process the score normalized over the correct completions of the
    group alone and 0 for the wrong ones, so what the reward model says of a wrong answer has no part.
    """
    found = []
    for c, s in zip(correct, scores, strict=True):
        process = np.zeros(len(s))
        if c.any():
            process[c] = normalized(s[c])
        found.append(normalized(c.astype(np.float64)) + process_weight * process)
    return found
