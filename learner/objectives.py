"""The surrogates: what of each token is to be raised, and where the clip held it back.

A token that is left out (`LossInputs.only`) has a gain of 0. None of them corrects what lies between
behaviour and proximal policy but `cispo`; that is the part of `learner.corrections`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, minimum

from learner.loss_inputs import LossInputs, LossOptions


@dataclass(frozen=True)
class Surrogate:
    """Of each token, [T] each."""

    gain: Tensor
    """What is raised, with gradient; equal to A times the gradient of log pi while all policies are one."""
    clipped_low: Tensor
    """bool: the ratio left the range below, and the clip acted."""
    clipped_high: Tensor


def ppo(inputs: LossInputs, options: LossOptions) -> Surrogate:
    """min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) with rho = pi / pi_prox of the token.

    Eq. 7 of arXiv:1707.06347, the clip range asymmetric as in DAPO, arXiv:2503.14476.
    """
    return _clipped(inputs.logprobs - inputs.proximal, inputs.advantages, options)


def gspo(inputs: LossInputs, options: LossOptions) -> Surrogate:
    """The same with one rho for all tokens of a sequence: (pi(y) / pi_prox(y))^(1 / |y|).

    Eq. 5 of arXiv:2507.18071. Its old policy is the proximal one: the clip bounds how far the steps of one
    batch may go. Over the behaviour policy, staleness and the sampler's rounding would use up a range of
    3e-4 before the first step.
    """
    log_ratio = inputs.spread(inputs.means(inputs.logprobs - inputs.proximal))
    return _clipped(log_ratio, inputs.advantages, options)


def cispo(inputs: LossInputs, options: LossOptions) -> Surrogate:
    """clip(rho, 1 - clip_low, 1 + clip_high) A log pi with rho = pi / mu of the token, without gradient.

    arXiv:2506.13585: the weight is clipped and not the update, so that every token keeps its gradient.
    """
    ratio = (inputs.logprobs - inputs.behaviour).detach().exp()
    low, high = 1.0 - options.clip_low, 1.0 + options.clip_high
    gain = ratio.clamp(low, high) * inputs.advantages * inputs.logprobs
    return Surrogate(gain, ratio < low, ratio > high)


def _clipped(log_ratio: Tensor, advantages: Tensor, options: LossOptions) -> Surrogate:
    ratio = log_ratio.exp()
    low, high = 1.0 - options.clip_low, 1.0 + options.clip_high
    gain = minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
    return Surrogate(gain, (advantages < 0) & (ratio < low), (advantages > 0) & (ratio > high))


SURROGATES = {"ppo": ppo, "gspo": gspo, "cispo": cispo}
