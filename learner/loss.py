"""The policy loss on flat tokens: surrogate, off-policy correction and penalties, put together.

Everything is a sum over tokens whose terms already carry their part of the batch's mean, so the micro-batches
of a batch add up exactly, in any order, however packed, on one rank or on many.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from learner.corrections import correction_weights, kept_sequences
from learner.loss_inputs import LossInputs, LossOptions
from learner.loss_metrics import loss_sums
from learner.objectives import SURROGATES
from learner.penalties import penalty

Normalization = Literal["token_mean", "sequence_mean", "fixed_length"]


def token_shares(lengths: Tensor, normalization: Normalization, tokens: int, sequences: int, max_tokens: int) -> Tensor:
    """Part of the batch's mean that each token has: float32 [sum(lengths)] from `lengths` int64 [B].

    `tokens` and `sequences` count the whole batch over all micro-batches and ranks; `max_tokens` is the most
    that a completion may have. A token of completion i has

    | token_mean | 1 / tokens | DAPO, arXiv:2503.14476 |
    | sequence_mean | 1 / (sequences * length_i) | GRPO, arXiv:2402.03300 |
    | fixed_length | 1 / (sequences * max_tokens) | Dr. GRPO, arXiv:2503.20783 |
    """
    each = torch.ones_like(lengths, dtype=torch.float32)
    if normalization == "token_mean":
        parts = each / tokens
    elif normalization == "sequence_mean":
        parts = each / (sequences * lengths)
    else:
        parts = each / (sequences * max_tokens)
    return parts.repeat_interleave(lengths)


def policy_loss(inputs: LossInputs, options: LossOptions) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss (scalar; sum over micro-batches = loss of the batch) and sums for `learner.loss_metrics.summarize`.

        loss = sum_t share_t * (penalty_t - w_t * gain_t)   over the sequences that no mask drops

    gain from `learner.objectives`, w and the mask from `learner.corrections`, penalty from
    `learner.penalties`. Tokens with share 0 may hold anything; in a token that counts a NaN, of any policy or
    in the advantage, makes the loss NaN, and the step is not taken.
    """
    counted = inputs.only(inputs.counted)
    kept = kept_sequences(counted, options)
    trained = counted.only(counted.spread(kept))
    surrogate = SURROGATES[options.objective](trained, options)
    weights = correction_weights(trained, options)
    loss = (trained.shares * (penalty(trained, options) - weights.values * surrogate.gain)).sum()
    with torch.no_grad():
        sums = loss_sums(counted, kept, surrogate, weights)
        sums["loss"] = loss.detach().double()
    return loss, sums
