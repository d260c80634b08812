"""The loss as a whole against scalar loops; what no split of a batch may change; what is left out, and what is NaN."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.loss import Normalization, policy_loss, token_shares
from learner.loss_inputs import LossInputs, LossOptions
from learner.loss_metrics import add, summarize
from tests import slow_loss
from tests.loss_cases import LENGTHS, MAX_TOKENS, POLICIES, at, case, cases, changed, gradient, picked, sequences

PAIRS = [("ppo", c) for c in ("none", "tis", "icepop", "decoupled")]
PAIRS += [("gspo", c) for c in ("none", "tis", "icepop", "decoupled")] + [("cispo", "none")]
"""Objectives with the corrections that the settings allow."""


@st.composite
def option_sets(draw: st.DrawFn) -> LossOptions:
    objective, correction = draw(st.sampled_from(PAIRS))
    return LossOptions(
        objective=objective,  # type: ignore[arg-type]
        correction=correction,  # type: ignore[arg-type]
        clip_low=draw(st.sampled_from([0.05, 0.2, 1.0])),
        clip_high=draw(st.sampled_from([0.05, 0.28, 4.0])),
        tis_cap=draw(st.sampled_from([1.0, 2.0])),
        sequence_mask=draw(st.sampled_from(["none", "product", "geometric"])),
        mask_low=draw(st.sampled_from([0.5, 0.9])),
        mask_high=draw(st.sampled_from([1.1, 3.0])),
        kl_coefficient=draw(st.sampled_from([0.0, 0.1])),
        kl_estimator=draw(st.sampled_from(["k1", "k2", "k3"])),
        entropy_coefficient=draw(st.sampled_from([0.0, 0.01])),
    )


@given(inputs=cases, options=option_sets())
def test_equals_scalar_loops(inputs: LossInputs, options: LossOptions) -> None:
    expected, slopes = slow_loss.loss(sequences(inputs), options)
    loss, sums = policy_loss(inputs, options)
    assert loss.item() == pytest.approx(expected, rel=1e-8, abs=1e-12)
    assert gradient(inputs, options)[0].tolist() == pytest.approx(slopes, rel=1e-8, abs=1e-12)
    assert summarize(sums)["loss"] == loss.item()


@given(inputs=cases, options=option_sets(), data=st.data())
def test_no_split_and_no_order_changes_loss_gradient_or_metrics(
    inputs: LossInputs, options: LossOptions, data: st.DataObject
) -> None:
    """Micro-batches, ranks and packing are this: the same sequences, otherwise ordered and cut anywhere between two."""
    order = data.draw(st.permutations(range(len(inputs.lengths))))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1)))) if len(order) > 1 else []
    runs = [order[start:end] for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    whole, whole_sums = policy_loss(inputs, options)
    parts = [policy_loss(picked(inputs, run), options) for run in runs]

    assert math.fsum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), rel=1e-9, abs=1e-14)
    summed = summarize(add(sums for _, sums in parts))
    expected = summarize(whole_sums)
    assert summed.pop("ratio_histogram") == expected.pop("ratio_histogram")
    assert summed == pytest.approx(expected, rel=1e-9, abs=1e-12)

    total = torch.zeros_like(inputs.shares)
    for run in runs:
        total += torch.autograd.grad(policy_loss(picked(inputs, run), options)[0], inputs.logprobs)[0]
    assert torch.allclose(total, gradient(inputs, options)[0], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("normalization", ["token_mean", "sequence_mean", "fixed_length"])
@given(lengths=st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=9))
def test_shares_equal_the_formulas_and_add_up(normalization: Normalization, lengths: list[int]) -> None:
    tokens, count = sum(lengths), len(lengths)
    found = token_shares(torch.tensor(lengths), normalization, tokens, count, MAX_TOKENS)
    divisors = {
        "token_mean": [tokens for _ in lengths],  # 1 / sum_i |y_i|
        "sequence_mean": [count * length for length in lengths],  # 1 / G * 1 / |y_i|
        "fixed_length": [count * MAX_TOKENS for _ in lengths],  # 1 / G * 1 / L
    }[normalization]
    expected = [1 / divisor for length, divisor in zip(lengths, divisors, strict=True) for _ in range(length)]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    of_sequences = [token_shares(torch.tensor([n]), normalization, tokens, count, MAX_TOKENS) for n in lengths]
    assert torch.equal(torch.cat(of_sequences), found)
    assert found.sum().item() == pytest.approx(
        tokens / (count * MAX_TOKENS) if normalization == "fixed_length" else 1.0, rel=1e-5
    )


@pytest.mark.parametrize(("objective", "correction"), PAIRS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_left_out_tokens_may_hold_anything(objective: str, correction: str, value: float) -> None:
    options = LossOptions(
        objective=objective,  # type: ignore[arg-type]
        correction=correction,  # type: ignore[arg-type]
        sequence_mask="geometric",
        mask_low=0.5,
        mask_high=2.0,
        kl_coefficient=0.1,
        entropy_coefficient=0.1,
    )
    clean = changed(case(), shares=at(case().shares, 2, 0.0))
    names = (*POLICIES, "advantages", "entropy")
    dirty = changed(clean, **{name: at(getattr(clean, name), 2, value) for name in names})
    dirty = changed(dirty, logprobs=dirty.logprobs.requires_grad_(), entropy=dirty.entropy.requires_grad_())
    for found, expected in zip(gradient(dirty, options), gradient(clean, options), strict=True):
        assert torch.equal(found, expected)
        assert found[2] == 0.0
    assert summarize(policy_loss(dirty, options)[1]) == summarize(policy_loss(clean, options)[1])


@pytest.mark.parametrize(("objective", "correction"), PAIRS)
@pytest.mark.parametrize("name", [*POLICIES, "advantages"])
def test_a_nan_in_a_counted_token_makes_the_loss_nan(objective: str, correction: str, name: str) -> None:
    options = LossOptions(
        objective=objective,  # type: ignore[arg-type]
        correction=correction,  # type: ignore[arg-type]
        sequence_mask="product",
        mask_low=1e-9,
        mask_high=1e9,
        kl_coefficient=0.1,
    )
    bad = changed(case(), **{name: at(getattr(case(), name), 2, math.nan)})
    loss, sums = policy_loss(bad, options)
    assert loss.isnan()
    assert math.isnan(summarize(sums)["loss"])  # type: ignore[arg-type]


@given(inputs=cases)
def test_a_masked_sequence_has_no_gradient_and_the_others_theirs(inputs: LossInputs) -> None:
    """What the mean is divided by stays: dropping a sequence makes no other one louder."""
    free = LossOptions(kl_coefficient=0.1, entropy_coefficient=0.1)
    options = LossOptions(
        kl_coefficient=0.1, entropy_coefficient=0.1, sequence_mask="geometric", mask_low=0.9, mask_high=1.1
    )
    kept = torch.tensor([slow_loss.kept(y, options) for y in sequences(inputs)]).repeat_interleave(inputs.lengths)
    for found, expected in zip(gradient(inputs, options), gradient(inputs, free), strict=True):
        assert torch.equal(found, torch.where(kept, expected, 0.0))


def test_a_masked_sequence_may_be_beyond_all_numbers() -> None:
    """A ratio of e^800 is what a mask is for: it is dropped, not multiplied with zero."""
    inputs = case()
    start = sum(LENGTHS[:2])
    bad = changed(
        inputs,
        behaviour=at(inputs.behaviour, start, -900.0),
        proximal=at(inputs.proximal, start, -800.0),
        reference=at(inputs.reference, start, 900.0),  # type: ignore[arg-type]
    )
    options = LossOptions(correction="decoupled", sequence_mask="geometric", kl_coefficient=0.1, kl_estimator="k3")
    options = LossOptions(**{**vars(options), "mask_low": 0.5, "mask_high": 2.0})
    loss, sums = policy_loss(bad, options)
    found, _ = gradient(bad, options)
    assert loss.isfinite()
    assert found.isfinite().all()
    assert not found[start : start + LENGTHS[2]].any()
    assert summarize(sums)["masked_sequence_share"] == 1 / len(LENGTHS)


@given(options=option_sets())
def test_a_micro_batch_without_sequences_adds_nothing(options: LossOptions) -> None:
    """Ranks with fewer micro-batches than others make up for them with empty ones, and go backward all the same."""
    inputs = case()
    empty = picked(inputs, [])
    loss, sums = policy_loss(empty, options)
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, inputs.logprobs)[0].any()
    whole = policy_loss(inputs, options)[1]
    assert summarize(add([whole, sums])) == summarize(whole)


def test_the_example_of_the_docstrings() -> None:
    """float32 as in training: two completions of 3 and 2 tokens, one optimizer step, behaviour the policy itself."""
    logprobs = torch.tensor([-1.0, -2.0, -0.5, -3.0, -0.1], requires_grad=True)
    lengths = torch.tensor([3, 2])
    fixed = logprobs.detach()
    shares = token_shares(lengths, "token_mean", 5, 2, MAX_TOKENS)
    advantages = torch.tensor([0.4, 0.4, 0.4, -0.4, -0.4])
    inputs = LossInputs(logprobs, fixed, fixed, advantages, shares, torch.ones(5), lengths)
    loss, sums = policy_loss(inputs, LossOptions())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-0.4 / 5)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-0.08, -0.08, -0.08, 0.08, 0.08])
    metrics = summarize(sums)
    assert (metrics["ratio_mean"], metrics["clip_share_low"], metrics["clip_share_high"]) == (1.0, 0.0, 0.0)
    assert "kl_reference" not in metrics
    assert sum(chain(metrics["ratio_histogram"])) == 5  # type: ignore[arg-type]
