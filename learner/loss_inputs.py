"""What the policy loss reads: the completion tokens of a micro-batch under four policies, and its options.

Behaviour mu sampled the tokens, proximal pi_prox is the learner at the start of the batch, pi is the learner
now, the reference is the policy that the run began with.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

Objective = Literal["ppo", "cispo", "gspo"]
Correction = Literal["none", "tis", "icepop", "decoupled"]
SequenceMask = Literal["none", "product", "geometric"]
KLEstimator = Literal["k1", "k2", "k3"]


@dataclass(frozen=True)
class LossOptions:
    """`LossOptions()` is the paper's clip range with truncated importance sampling; [learner] explains each."""

    objective: Objective = "ppo"
    clip_low: float = 0.2
    clip_high: float = 0.28
    correction: Correction = "tis"
    tis_cap: float = 2.0
    icepop_low: float = 0.5
    icepop_high: float = 5.0
    sequence_mask: SequenceMask = "none"
    mask_low: float = 0.1
    mask_high: float = 10.0
    kl_coefficient: float = 0.0
    kl_estimator: KLEstimator = "k2"
    entropy_coefficient: float = 0.0


@dataclass(frozen=True)
class LossInputs:
    """The completion tokens of one micro-batch, sequence after sequence, each whole; floating point [T] each.

    Only `logprobs` and `entropy` may require a gradient. Example: two completions of 3 and 2 tokens give T = 5
    and lengths [3, 2].
    """

    logprobs: Tensor
    """log pi of each token, at the temperature it was sampled at."""
    proximal: Tensor
    """log pi_prox; `logprobs.detach()` when the batch has one optimizer step (the ratio is exactly 1)."""
    behaviour: Tensor
    """log mu, as the sampler reported it."""
    advantages: Tensor
    shares: Tensor
    """Part of the batch's mean that each token has (see `learner.loss.token_shares`); 0 leaves the token out."""
    entropy: Tensor
    """Of pi at each token, in nats."""
    lengths: Tensor
    """int64 [B], tokens of each sequence; they sum to T."""
    reference: Tensor | None = None
    """log pi_ref; None where nothing asks for it."""

    @property
    def counted(self) -> Tensor:
        """bool [T]: the tokens that have a part in the mean."""
        return self.shares > 0

    def only(self, chosen: Tensor) -> LossInputs:
        """The same with `chosen` (bool [T]) tokens; the others become zeros, from which nothing follows.

        Selected and not multiplied: a token that is left out may hold anything, and 0 * inf is NaN.
        """

        def select(name: str) -> Tensor | None:
            values = getattr(self, name)
            return values if values is None or name == "lengths" else torch.where(chosen, values, 0.0)

        return LossInputs(**{field.name: select(field.name) for field in fields(self)})  # type: ignore[arg-type]

    def sums(self, values: Tensor) -> Tensor:
        """[B] from `values` [T], zero where a token is left out: the sum over each sequence."""
        rows = self.spread(torch.arange(len(self.lengths), device=values.device))
        return values.new_zeros(len(self.lengths)).index_add(0, rows, values)

    def means(self, values: Tensor) -> Tensor:
        """[B] from `values` [T]: the mean over the counted tokens of each sequence, 0 without any."""
        return self.sums(values) / self.sums(self.counted.to(values.dtype)).clamp(min=1.0)

    def spread(self, values: Tensor) -> Tensor:
        """[T] from `values` [B]: each token has its sequence's."""
        return values.repeat_interleave(self.lengths, output_size=len(self.shares))
