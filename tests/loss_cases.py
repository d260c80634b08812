"""Completion tokens for tests of the loss: as tensors, and as plain numbers for formulas worked out the slow way."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from learner.loss import Normalization, policy_loss, token_shares
from learner.loss_inputs import LossInputs, LossOptions

LENGTHS = (3, 1, 7, 5, 9)
MAX_TOKENS = 12
POLICIES = ("logprobs", "proximal", "behaviour", "reference")


@dataclass(frozen=True)
class Token:
    """One row of the inputs, in the notation of the papers."""

    pi: float
    prox: float
    mu: float
    ref: float
    advantage: float
    share: float
    entropy: float


def case(
    seed: int = 0,
    lengths: tuple[int, ...] = LENGTHS,
    *,
    spread: float = 0.4,
    on_policy: bool = False,
    normalization: Normalization = "token_mean",
) -> LossInputs:
    """Sequences with an advantage each, whose policies differ by about `spread` a token; float64, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.tensor(lengths)
    tokens = int(sizes.sum())

    def noise(count: int = tokens) -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    logprobs = -2.0 + noise() * spread
    proximal = logprobs.clone() if on_policy else logprobs + noise() * spread
    behaviour = logprobs.clone() if on_policy else proximal + noise() * spread
    return LossInputs(
        logprobs=logprobs.requires_grad_(),
        proximal=proximal,
        behaviour=behaviour,
        advantages=noise(len(lengths)).repeat_interleave(sizes),
        shares=token_shares(sizes, normalization, tokens, len(lengths), MAX_TOKENS).double(),
        entropy=noise().abs().requires_grad_(),
        lengths=sizes,
        reference=logprobs.detach() + noise() * spread,
    )


cases = st.builds(
    case,
    seed=st.integers(0, 2**32),
    lengths=st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=6).map(tuple),
    spread=st.sampled_from([0.01, 0.4, 2.0]),
    normalization=st.sampled_from(["token_mean", "sequence_mean", "fixed_length"]),
)


def changed(inputs: LossInputs, **values: Tensor | None) -> LossInputs:
    return replace(inputs, **values)  # type: ignore[arg-type]


def at(values: Tensor, place: int, value: float) -> Tensor:
    """A copy with another value at one place."""
    copy = values.detach().clone()
    copy[place] = value
    return copy


def sequences(inputs: LossInputs) -> list[list[Token]]:
    """The counted tokens of each sequence as plain numbers."""
    names = (*POLICIES, "advantages", "shares", "entropy")
    rows = [Token(*row) for row in zip(*(getattr(inputs, name).tolist() for name in names), strict=True)]
    result, start = [], 0
    for length in inputs.lengths.tolist():
        result.append([row for row in rows[start : start + length] if row.share > 0])
        start += length
    return result


def picked(inputs: LossInputs, order: list[int]) -> LossInputs:
    """The sequences at these places, in this order: a micro-batch of the batch."""
    rows = torch.arange(len(inputs.shares)).split(inputs.lengths.tolist())
    places = torch.cat([torch.empty(0, dtype=torch.int64), *(rows[row] for row in order)])
    parts: dict[str, Any] = {field.name: getattr(inputs, field.name)[places] for field in fields(inputs)[:-2]}
    reference = None if inputs.reference is None else inputs.reference[places]
    return LossInputs(**parts, lengths=inputs.lengths[order], reference=reference)


def gradient(inputs: LossInputs, options: LossOptions) -> tuple[Tensor, Tensor]:
    """Of the loss in log pi and in the entropy, [T] each; the inputs keep none."""
    loss, _ = policy_loss(inputs, options)
    found = torch.autograd.grad(loss, (inputs.logprobs, inputs.entropy), allow_unused=True)
    of_logprobs, of_entropy = (torch.zeros_like(inputs.shares) if part is None else part for part in found)
    return of_logprobs, of_entropy
