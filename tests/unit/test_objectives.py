"""The surrogates against loops in plain Python close to the papers' formulas, and what each promises."""

from __future__ import annotations

import math
from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.loss_inputs import LossInputs, LossOptions, Objective
from learner.objectives import SURROGATES
from tests import slow_loss
from tests.loss_cases import case, cases, changed, gradient, sequences

OBJECTIVES: list[Objective] = ["ppo", "gspo", "cispo"]
CLIPS = [(0.2, 0.28), (3e-4, 4e-4), (1.0, 4.0)]


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(inputs=cases, clips=st.sampled_from(CLIPS))
def test_equals_scalar_loops(objective: Objective, inputs: LossInputs, clips: tuple[float, float]) -> None:
    options = LossOptions(objective=objective, clip_low=clips[0], clip_high=clips[1])
    found = SURROGATES[objective](inputs, options)
    (slopes,) = torch.autograd.grad(found.gain.sum(), inputs.logprobs)
    rows = [row for y in sequences(inputs) for row in slow_loss.OBJECTIVES[objective](y, options)]
    gains, expected, low, high = zip(*rows, strict=True)
    assert found.gain.tolist() == pytest.approx(gains, rel=1e-9)
    assert slopes.tolist() == pytest.approx(expected, rel=1e-9)
    assert found.clipped_low.tolist() == list(low)
    assert found.clipped_high.tolist() == list(high)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(seed=st.integers(0, 2**32), clips=st.sampled_from(CLIPS))
def test_while_all_policies_are_one_it_is_reinforce(
    objective: Objective, seed: int, clips: tuple[float, float]
) -> None:
    inputs = case(seed, on_policy=True)
    options = LossOptions(objective=objective, clip_low=clips[0], clip_high=clips[1], correction="none")
    reinforce = -(inputs.shares * inputs.advantages * inputs.logprobs).sum()
    (expected,) = torch.autograd.grad(reinforce, inputs.logprobs)
    assert torch.allclose(gradient(inputs, options)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("objective", ["ppo", "gspo"])
@given(inputs=cases, clips=st.sampled_from(CLIPS))
def test_a_clip_only_takes_gradient_away(objective: Objective, inputs: LossInputs, clips: tuple[float, float]) -> None:
    held, _ = gradient(inputs, LossOptions(objective=objective, clip_low=clips[0], clip_high=clips[1]))
    free, _ = gradient(inputs, LossOptions(objective=objective, clip_low=1.0, clip_high=math.inf))
    assert ((held == 0) | torch.isclose(held, free, rtol=1e-12)).all()


@given(inputs=cases, clips=st.sampled_from(CLIPS))
def test_cispo_drops_no_token_and_caps_each(inputs: LossInputs, clips: tuple[float, float]) -> None:
    options = LossOptions(objective="cispo", clip_low=clips[0], clip_high=clips[1], correction="none")
    size = gradient(inputs, options)[0].abs() / (inputs.shares * inputs.advantages.abs())
    assert (size > 0).all()
    assert (size <= (1 + clips[1]) * (1 + 1e-12)).all()


@given(inputs=cases)
def test_gspo_treats_a_sequence_as_one(inputs: LossInputs) -> None:
    found = SURROGATES["gspo"](inputs, LossOptions(objective="gspo", clip_low=0.1, clip_high=0.1))
    for values in (found.gain, found.clipped_low, found.clipped_high):
        assert all(len(set(part.tolist())) == 1 for part in values.split(inputs.lengths.tolist()))


@given(seed=st.integers(0, 2**32), count=st.integers(1, 8))
def test_gspo_of_single_tokens_is_ppo(seed: int, count: int) -> None:
    inputs = case(seed, (1,) * count)
    one, other = (gradient(inputs, LossOptions(objective=objective)) for objective in ("gspo", "ppo"))  # type: ignore[arg-type]
    assert torch.allclose(one[0], other[0], rtol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_token_that_is_left_out_has_no_part_in_its_sequence(objective: Objective) -> None:
    """Neither in the mean over |y| of gspo: the rest is what it would be without the token."""
    inputs, places = case(1, (4, 3)), torch.tensor([0, 2, 3, 4, 5, 6])
    shares = inputs.shares.clone()
    shares[1] = 0.0
    kept = {
        name: getattr(inputs, name)[places]
        for name in ("logprobs", "proximal", "behaviour", "advantages", "shares", "entropy", "reference")
    }
    shorter = LossInputs(**kept, lengths=torch.tensor([3, 3]))
    options = LossOptions(objective=objective, clip_low=0.05, clip_high=0.05, correction="none")
    left_out = gradient(changed(inputs, shares=shares), options)[0]
    expected = gradient(changed(shorter, logprobs=kept["logprobs"].detach().requires_grad_()), options)[0]
    assert left_out[1] == 0.0
    assert torch.allclose(left_out[places], expected, rtol=1e-12)
    assert list(chain.from_iterable(sequences(shorter))) == [
        token for y in sequences(changed(inputs, shares=shares)) for token in y
    ]
