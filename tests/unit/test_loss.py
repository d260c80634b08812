"""The loss against scalar loops in plain Python, and its gradient against autograd of the naive formula."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from learner.loss import LossInputs, LossOptions, add, policy_loss, summarize, token_shares

LENGTHS = [3, 1, 7, 5, 9]
T = sum(LENGTHS)


def inputs(seed: int = 0, *, requires_grad: bool = False, spread: float = 0.4) -> LossInputs:
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(T, generator=generator) * spread

    proximal = -2.0 + noise()
    logprobs = (proximal + noise()).requires_grad_(requires_grad)
    shares = token_shares(torch.tensor(LENGTHS), "token_mean", T, len(LENGTHS))
    return LossInputs(logprobs, proximal, proximal + noise(), noise() * 3, shares)


def part(whole: LossInputs, start: int, end: int) -> LossInputs:
    return LossInputs(*(getattr(whole, name)[start:end] for name in LossInputs.__dataclass_fields__))


def slow(given: LossInputs, options: LossOptions) -> dict[str, float]:
    """Token by token, as paper.md section 5 says it."""
    loss = low = high = ratios = weights = kl = raw = squared = 0.0
    rows = zip(*(getattr(given, name).tolist() for name in LossInputs.__dataclass_fields__), strict=True)
    count = 0
    for pi, prox, mu, advantage, share in rows:
        if share == 0:
            continue
        count += 1
        ratio = math.exp(pi - prox)
        weight = min(math.exp(prox - mu), options.tis_cap) if options.correction == "tis" else 1.0
        clipped = min(max(ratio, 1 - options.clip_low), 1 + options.clip_high)
        loss -= share * weight * min(ratio * advantage, clipped * advantage)
        low += advantage < 0 and ratio < 1 - options.clip_low
        high += advantage > 0 and ratio > 1 + options.clip_high
        ratios += ratio
        weights += weight
        kl += math.exp(pi - mu) - 1 - (pi - mu)
        raw += math.exp(prox - mu)
        squared += math.exp(prox - mu) ** 2
    return {
        "loss": loss,
        "tokens": count,
        "clip_share_low": low / count,
        "clip_share_high": high / count,
        "ratio_mean": ratios / count,
        "tis_weight_mean": weights / count,
        "kl_behaviour": kl / count,
        "ess": raw**2 / squared / count,
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("options", [LossOptions(), LossOptions(correction="none"), LossOptions(0.1, 0.5, "tis", 1.0)])
def test_equals_scalar_loops(seed: int, options: LossOptions) -> None:
    loss, sums = policy_loss(inputs(seed), options)
    metrics = summarize(sums)
    assert loss.item() == pytest.approx(metrics["loss"])
    assert {name: metrics[name] for name in slow(inputs(seed), options)} == pytest.approx(
        slow(inputs(seed), options), rel=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
def test_gradient_equals_the_naive_formula(seed: int) -> None:
    given = inputs(seed, requires_grad=True)
    policy_loss(given, LossOptions())[0].backward()
    logprobs = given.logprobs.detach().double().requires_grad_()
    ratio = (logprobs - given.proximal).exp()
    weight = torch.clamp((given.proximal.double() - given.behaviour).exp(), max=2.0)
    gain = torch.minimum(ratio * given.advantages, ratio.clamp(0.8, 1.28) * given.advantages)
    (-(weight * gain).mean()).backward()
    assert given.logprobs.grad is not None
    assert logprobs.grad is not None
    assert torch.allclose(given.logprobs.grad.double(), logprobs.grad, atol=1e-7)


def test_current_policy_as_proximal_gives_the_policy_gradient() -> None:
    """With one optimizer step: ratio exactly 1, gradient -A w / T, nothing clipped."""
    given = inputs(requires_grad=True)
    given = LossInputs(given.logprobs, given.logprobs.detach(), given.behaviour, given.advantages, given.shares)
    loss, sums = policy_loss(given, LossOptions(correction="none"))
    loss.backward()
    assert given.logprobs.grad is not None
    assert torch.allclose(given.logprobs.grad, -given.advantages / T)
    metrics = summarize(sums)
    assert metrics["ratio_mean"] == 1.0
    assert metrics["clip_share_low"] == metrics["clip_share_high"] == 0.0


@pytest.mark.parametrize("cuts", [[0, T], [0, 4, T], [0, 1, 2, 11, T]])
def test_micro_batches_add_up(cuts: list[int]) -> None:
    whole, whole_sums = policy_loss(inputs(), LossOptions())
    parts = [policy_loss(part(inputs(), a, b), LossOptions()) for a, b in pairwise(cuts)]
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), rel=1e-6)
    assert summarize(add(sums for _, sums in parts)) == pytest.approx(summarize(whole_sums), rel=1e-6)


def test_shares_weigh_tokens_or_sequences() -> None:
    lengths = torch.tensor(LENGTHS)
    assert token_shares(lengths, "token_mean", T, 5).tolist() == pytest.approx([1 / T] * T)
    expected = [1 / (5 * length) for length in LENGTHS for _ in range(length)]
    assert token_shares(lengths, "sequence_mean", T, 5).tolist() == pytest.approx(expected)


def test_left_out_tokens_may_hold_anything() -> None:
    given = inputs(requires_grad=True)
    shares = given.shares.clone()
    shares[2] = 0.0
    behaviour = given.behaviour.clone()
    behaviour[2] = -torch.inf
    loss, sums = policy_loss(
        LossInputs(given.logprobs, given.proximal, behaviour, given.advantages, shares), LossOptions()
    )
    loss.backward()
    assert given.logprobs.grad is not None
    assert given.logprobs.grad[2] == 0.0
    assert all(math.isfinite(value) for value in summarize(sums).values())
    assert sums["tokens"] == T - 1
