"""The policy loss on flat tokens: clipped surrogate times truncated importance sampling, and its diagnostics.

Three policies (paper.md calls them so): behaviour mu sampled the tokens, proximal pi_prox is the learner at
the start of the batch, pi is the learner now. Everything is a sum over tokens whose terms already carry
their part of the batch's mean, so the micro-batches of a batch add up exactly, on one rank or on many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Correction = Literal["tis", "none"]
Normalization = Literal["token_mean", "sequence_mean"]

_MAX_LOG_RATIO = 20.0  # of diagnostics only: one token of ratio e^88 would make every mean infinite


@dataclass(frozen=True)
class LossInputs:
    """The completion tokens of one micro-batch, sequence after sequence; float32 [T] each.

    Only `logprobs` may require a gradient. Example: two completions of 3 and 2 tokens give T = 5.
    """

    logprobs: Tensor
    """log pi of each token, at the temperature it was sampled at."""
    proximal: Tensor
    """log pi_prox; `logprobs.detach()` when the batch has one optimizer step (the ratio is exactly 1)."""
    behaviour: Tensor
    """log mu, as the sampler reported it."""
    advantages: Tensor
    shares: Tensor
    """Part of the batch's mean that each token has (see `token_shares`); 0 leaves the token out."""


@dataclass(frozen=True)
class LossOptions:
    """`LossOptions()` is the paper's clip range with truncated importance sampling."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    correction: Correction = "tis"
    tis_cap: float = 2.0
    """C of min(pi_prox / mu, C)."""


def token_shares(lengths: Tensor, normalization: Normalization, tokens: int, sequences: int) -> Tensor:
    """Part of the batch's mean that each token has: float32 [sum(lengths)] from `lengths` int64 [B].

    `tokens` and `sequences` count the whole batch over all micro-batches and ranks. `token_mean` gives every
    token 1 / tokens (DAPO, arXiv:2503.14476); `sequence_mean` gives a token of completion i
    1 / (sequences * length_i) (GRPO, arXiv:2402.03300).
    """
    if normalization == "token_mean":
        parts = torch.full_like(lengths, 1.0 / tokens, dtype=torch.float32)
    elif normalization == "sequence_mean":
        parts = 1.0 / (sequences * lengths.to(torch.float32))
    else:
        raise ValueError(f"normalization {normalization!r} is unknown; choose token_mean or sequence_mean")
    return parts.repeat_interleave(lengths)


def policy_loss(inputs: LossInputs, options: LossOptions) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss (scalar, float32; sum over micro-batches = loss of the batch) and sums for `summarize`.

        loss = -sum_t share_t * w_t * min(rho_t A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) A_t)
        rho = pi / pi_prox,   w = min(pi_prox / mu, C) without gradient, or 1

    (PPO, arXiv:1707.06347, with DAPO's asymmetric clip; the weight as in paper.md, section 5.)
    """
    counted = inputs.shares > 0
    # where() and not a product: a left-out token may hold anything, and 0 * inf is NaN.
    log_ratio = torch.where(counted, inputs.logprobs - inputs.proximal, 0.0)
    mismatch = torch.where(counted, inputs.proximal - inputs.behaviour, 0.0)
    gain = torch.where(counted, inputs.advantages, 0.0)

    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - options.clip_low, 1.0 + options.clip_high)
    if options.correction == "tis":
        weight = mismatch.exp().clamp(max=options.tis_cap)
    elif options.correction == "none":
        weight = torch.ones_like(mismatch)
    else:
        raise ValueError(f"correction {options.correction!r} is unknown; choose tis or none")
    surrogate = torch.minimum(ratio * gain, clipped * gain)
    loss = -(inputs.shares * weight * surrogate).sum()

    with torch.no_grad():
        sums = _sums(inputs, options, counted, log_ratio, mismatch, weight)
        sums["loss"] = loss.detach().double()
    return loss, sums


def _sums(
    inputs: LossInputs,
    options: LossOptions,
    counted: Tensor,
    log_ratio: Tensor,
    mismatch: Tensor,
    weight: Tensor,
) -> dict[str, Tensor]:
    """Scalars, float64; all add over micro-batches but `*_max`, of which the largest counts."""
    ratio = log_ratio.exp()
    low = counted & (inputs.advantages < 0) & (ratio < 1.0 - options.clip_low)
    high = counted & (inputs.advantages > 0) & (ratio > 1.0 + options.clip_high)
    bounded = log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    off_policy = (log_ratio + mismatch).clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    raw_weight = mismatch.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).double().exp()
    capped = mismatch > math.log(options.tis_cap) if options.correction == "tis" else counted & False

    def total(values: Tensor) -> Tensor:
        return torch.where(counted, values, 0).sum(dtype=torch.float64)

    return {
        "tokens": counted.sum(dtype=torch.float64),
        "clipped_low": total(low),
        "clipped_high": total(high),
        "ratio": total(bounded.exp()),
        "tis_weight": total(weight),
        "tis_capped": total(capped),
        "kl_behaviour": total(off_policy.exp() - 1.0 - off_policy),
        "kl_proximal": total(bounded.exp() - 1.0 - bounded),
        "logprob_difference": total(mismatch.abs()),
        "logprob_difference_max": mismatch.abs().max().double() if len(mismatch) else mismatch.sum().double(),
        "raw_weight": total(raw_weight),
        "raw_weight_squared": total(raw_weight.square()),
    }


def add(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sums of several micro-batches as those of one."""
    result: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            combine = torch.maximum if name.endswith("_max") else torch.add
            result[name] = combine(result[name], value) if name in result else value
    return result


def summarize(sums: dict[str, Tensor]) -> dict[str, float]:
    """Readable metrics of a batch: means over its tokens.

    loss; clip_share_low, clip_share_high and tis_capped_share in [0, 1]; ratio_mean; tis_weight_mean;
    kl_behaviour and kl_proximal (the unbiased non-negative estimator exp(d) - 1 - d in nats, of mu or pi_prox
    from pi); logprob_difference_mean and _max, |log pi_prox - log mu| in nats, the sampler-trainer mismatch;
    ess, the effective sample size of the untruncated weights pi_prox / mu over the tokens, in (0, 1].
    """
    value = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
    tokens = max(value["tokens"], 1.0)
    squared = value["raw_weight_squared"]
    return {
        "loss": value["loss"],
        "tokens": value["tokens"],
        "clip_share_low": value["clipped_low"] / tokens,
        "clip_share_high": value["clipped_high"] / tokens,
        "ratio_mean": value["ratio"] / tokens,
        "tis_weight_mean": value["tis_weight"] / tokens,
        "tis_capped_share": value["tis_capped"] / tokens,
        "kl_behaviour": value["kl_behaviour"] / tokens,
        "kl_proximal": value["kl_proximal"] / tokens,
        "logprob_difference_mean": value["logprob_difference"] / tokens,
        "logprob_difference_max": value["logprob_difference_max"],
        "ess": value["raw_weight"] ** 2 / (tokens * squared) if squared > 0 else 0.0,
    }
