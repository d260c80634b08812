"""Off-policy corrections: what lies between the policy that sampled a token and the proximal one.

A weight scales a token's part of the loss; a mask leaves a whole sequence out. Neither has a gradient, and
neither changes what a mean is divided by: what is dropped counts as zero, so the rest weighs as before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.loss_inputs import LossInputs, LossOptions


@dataclass(frozen=True)
class Weights:
    """Of each token, [T] each."""

    values: Tensor
    capped: Tensor
    """bool: the weight would have been larger."""
    zeroed: Tensor
    """bool: the weight would not have been 0."""


def correction_weights(inputs: LossInputs, options: LossOptions) -> Weights:
    """w of each token from m = pi_prox / mu; under gspo m is of the sequence, (pi_prox(y) / mu(y))^(1 / |y|).

    | none | 1 |
    | tis | min(m, tis_cap): truncated importance sampling, as IMPALA's, arXiv:1802.01561 |
    | icepop | m in [icepop_low, icepop_high], else 0: arXiv:2510.18855 |
    | decoupled | m: decoupled PPO, arXiv:2110.00641 |

    A NaN stays one under each of them, so that it reaches the loss and stops the step.
    """
    log_ratio = (inputs.proximal - inputs.behaviour).detach()
    if options.objective == "gspo":  # its unit is the sequence throughout
        log_ratio = inputs.spread(inputs.means(log_ratio))
    never = torch.zeros_like(log_ratio, dtype=torch.bool)
    if options.correction == "none":
        return Weights(torch.ones_like(log_ratio).where(~log_ratio.isnan(), torch.nan), never, never)
    weights = log_ratio.exp()
    if options.correction == "tis":
        return Weights(weights.clamp(max=options.tis_cap), log_ratio > math.log(options.tis_cap), never)
    if options.correction == "icepop":
        outside = _outside(log_ratio, options.icepop_low, options.icepop_high)
        return Weights(weights.where(~outside, 0.0), never, outside)
    return Weights(weights, never, never)


def kept_sequences(inputs: LossInputs, options: LossOptions) -> Tensor:
    """bool [B]: sequences whose ratio pi_prox(y) / mu(y) lies in [mask_low, mask_high]; all without a mask.

    `product` takes the ratio as it is, `geometric` its |y|-th root, the geometric mean over the tokens. One
    that is NaN is kept, so that it stops the step.
    """
    if options.sequence_mask == "none":
        return torch.ones_like(inputs.lengths, dtype=torch.bool)
    reduce = inputs.sums if options.sequence_mask == "product" else inputs.means
    return ~_outside(reduce((inputs.proximal - inputs.behaviour).detach()), options.mask_low, options.mask_high)


def _outside(log_ratio: Tensor, low: float, high: float) -> Tensor:
    return (log_ratio < math.log(low)) | (log_ratio > math.log(high))
