"""Metrics of the loss, exact however a batch is cut: sums that add, and `*_max`, of which the largest counts."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from learner.corrections import Weights
from learner.loss_inputs import LossInputs
from learner.objectives import Surrogate
from learner.penalties import divergence
from learner.ratio_bins import RATIO_EDGES

_MAX_LOG_RATIO = 20.0  # of metrics only: one token of ratio e^88 would make every mean infinite


def loss_sums(counted: LossInputs, kept: Tensor, surrogate: Surrogate, weights: Weights) -> dict[str, Tensor]:
    """Sums over the counted tokens of a micro-batch, float64, scalars but for `ratio_histogram` [35].

    `kept` bool [B] are the sequences that no mask dropped; in `surrogate` and `weights` the tokens of the others
    are zeros, which no clip and no weight touches.
    """
    tokens = counted.counted
    present = counted.sums(tokens.double()) > 0
    moved = counted.logprobs - counted.proximal
    mismatch = counted.proximal - counted.behaviour
    off_policy = moved + mismatch
    raw_weight = _bounded(mismatch).double().exp()

    def total(values: Tensor) -> Tensor:
        return torch.where(tokens, values, 0).sum(dtype=torch.float64)

    sums = {
        "tokens": tokens.sum(dtype=torch.float64),
        "sequences": present.sum(dtype=torch.float64),
        "masked_sequences": (~kept).sum(dtype=torch.float64),
        "clipped_low": total(surrogate.clipped_low),
        "clipped_high": total(surrogate.clipped_high),
        "ratio": total(_bounded(moved).exp()),
        "ratio_histogram": _histogram(off_policy, tokens),
        "correction_weight": total(torch.where(counted.spread(kept), weights.values, 0)),
        "correction_capped": total(weights.capped),
        "correction_zeroed": total(weights.zeroed),
        "kl_behaviour": total(divergence(_bounded(-off_policy), "k3")),
        "kl_proximal": total(divergence(_bounded(-moved), "k3")),
        "entropy": total(counted.entropy),
        "logprob_difference": total(mismatch.abs()),
        "logprob_difference_max": mismatch.abs().amax().double() if len(mismatch) else tokens.sum().double(),
        "raw_weight": total(raw_weight),
        "raw_weight_squared": total(raw_weight.square()),
    }
    if counted.reference is not None:
        sums["kl_reference"] = total(divergence(_bounded(counted.logprobs - counted.reference), "k3"))
    return sums


def _bounded(log_ratio: Tensor) -> Tensor:
    return log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)


def _histogram(log_ratio: Tensor, tokens: Tensor) -> Tensor:
    edges = torch.tensor([math.log(edge) for edge in RATIO_EDGES], dtype=log_ratio.dtype, device=log_ratio.device)
    counts = torch.zeros(len(RATIO_EDGES) + 1, dtype=torch.float64, device=log_ratio.device)
    return counts.index_add(0, torch.bucketize(log_ratio, edges), tokens.double())


def add(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Sums of several micro-batches as those of one."""
    result: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            combine = torch.maximum if name.endswith("_max") else torch.add
            result[name] = combine(result[name], value) if name in result else value
    return result


def summarize(sums: dict[str, Tensor]) -> dict[str, float | list[int]]:
    """Readable metrics of a batch: means over its counted tokens, those of dropped sequences among them.

    loss; tokens; clip_share_low and clip_share_high in [0, 1]; ratio_mean of pi / pi_prox; ratio_histogram,
    the tokens by pi / mu (`RATIO_EDGES`; what is NaN lies in the last bin); correction_weight_mean (0 where
    dropped), correction_capped_share and correction_zeroed_share; masked_sequence_share of the sequences;
    kl_behaviour, kl_proximal and, where there is one, kl_reference, unbiased and never negative, in nats:
    KL(mu, pi), KL(pi_prox, pi), KL(pi, pi_ref), as far as the tokens are of the first of each pair; entropy
    in nats; logprob_difference_mean and _max, |log pi_prox - log mu|, the sampler-trainer mismatch; ess, the
    effective sample size of the untruncated weights pi_prox / mu over the tokens, in (0, 1].
    """
    flat = torch.cat([value.reshape(-1) for value in sums.values()]).tolist()  # one copy from the device
    parts = iter(flat)
    values = {name: [next(parts) for _ in range(value.numel())] for name, value in sums.items()}
    of = {name: numbers[0] for name, numbers in values.items()}
    tokens = max(of["tokens"], 1.0)
    metrics: dict[str, float | list[int]] = {
        "loss": of["loss"],
        "tokens": of["tokens"],
        "clip_share_low": of["clipped_low"] / tokens,
        "clip_share_high": of["clipped_high"] / tokens,
        "ratio_mean": of["ratio"] / tokens,
        "ratio_histogram": [int(count) for count in values["ratio_histogram"]],
        "correction_weight_mean": of["correction_weight"] / tokens,
        "correction_capped_share": of["correction_capped"] / tokens,
        "correction_zeroed_share": of["correction_zeroed"] / tokens,
        "masked_sequence_share": of["masked_sequences"] / max(of["sequences"], 1.0),
        "kl_behaviour": of["kl_behaviour"] / tokens,
        "kl_proximal": of["kl_proximal"] / tokens,
        "entropy": of["entropy"] / tokens,
        "logprob_difference_mean": of["logprob_difference"] / tokens,
        "logprob_difference_max": of["logprob_difference_max"],
        "ess": of["raw_weight"] ** 2 / (tokens * of["raw_weight_squared"]) if of["raw_weight_squared"] > 0 else 0.0,
    }
    if "kl_reference" in of:
        metrics["kl_reference"] = of["kl_reference"] / tokens
    return metrics
