"""What the loss adds to the surrogate: the divergence from the reference policy, and an entropy bonus."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.loss_inputs import KLEstimator, LossInputs, LossOptions


def penalty(inputs: LossInputs, options: LossOptions) -> Tensor:
    """kl_coefficient * k - entropy_coefficient * H of each token, [T].

    As in Eq. 3 of arXiv:2402.03300 (GRPO) neither is weighted by a ratio: the tokens are taken for pi's own.
    Raises ValueError when there is a coefficient and no reference.
    """
    result = torch.zeros_like(inputs.logprobs)
    if options.kl_coefficient:
        if inputs.reference is None:
            raise ValueError(f"kl_coefficient = {options.kl_coefficient:g} without a reference; give its log pi_ref")
        result = result + options.kl_coefficient * divergence(inputs.logprobs - inputs.reference, options.kl_estimator)
    if options.entropy_coefficient:
        result = result - options.entropy_coefficient * inputs.entropy
    return result


def divergence(log_ratio: Tensor, estimator: KLEstimator) -> Tensor:
    """Estimates of KL(pi, other) from d = log pi - log other of tokens that pi sampled; nats, as `log_ratio`.

    | k1 | d | unbiased, of any sign |
    | k2 | d^2 / 2 | biased, never negative |
    | k3 | exp(-d) - 1 + d | unbiased, never negative (Eq. 4 of arXiv:2402.03300) |

    (J. Schulman, Approximating KL Divergence, 2020.) As a loss their gradients are, on average over those
    tokens, another matter (arXiv:2506.09477): zero for k1, that of KL(pi, other) for k2, that of
    KL(other, pi) for k3.
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2.0
    return (-log_ratio).expm1() + log_ratio
