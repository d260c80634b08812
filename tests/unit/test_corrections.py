"""Off-policy weights and sequence masks against loops in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.corrections import correction_weights, kept_sequences
from learner.loss_inputs import Correction, LossInputs, LossOptions, Objective
from tests import slow_loss
from tests.loss_cases import at, case, cases, changed, sequences

CORRECTIONS: list[Correction] = ["none", "tis", "icepop", "decoupled"]


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("objective", ["ppo", "gspo"])
@given(inputs=cases)
def test_weights_equal_scalar_loops(objective: Objective, correction: Correction, inputs: LossInputs) -> None:
    options = LossOptions(objective=objective, correction=correction, tis_cap=1.1, icepop_low=0.8, icepop_high=1.3)
    found = correction_weights(inputs, options)
    rows = [row for y in sequences(inputs) for row in slow_loss.weights(y, options)]
    values, capped, zeroed = zip(*rows, strict=True)
    assert found.values.tolist() == pytest.approx(values, rel=1e-9)
    assert found.capped.tolist() == list(capped)
    assert found.zeroed.tolist() == list(zeroed)


@given(inputs=cases, low=st.floats(0.1, 1.0), high=st.floats(1.0, 10.0))
def test_masks_equal_scalar_loops(inputs: LossInputs, low: float, high: float) -> None:
    for mask in ("product", "geometric"):
        options = LossOptions(sequence_mask=mask, mask_low=low, mask_high=high)  # type: ignore[arg-type]
        assert kept_sequences(inputs, options).tolist() == [slow_loss.kept(y, options) for y in sequences(inputs)]
    assert kept_sequences(inputs, LossOptions(mask_low=1.0, mask_high=1.0)).all()


def test_a_long_sequence_leaves_the_band_of_its_product_and_not_that_of_its_mean() -> None:
    """100 tokens, each 5 % likelier than it was sampled: 131 times in all, 1.05 on average."""
    inputs = case(0, (100, 1))
    inputs = changed(inputs, behaviour=inputs.proximal - math.log(1.05))
    wide = {"mask_low": 0.1, "mask_high": 10.0}
    assert kept_sequences(inputs, LossOptions(sequence_mask="product", **wide)).tolist() == [False, True]  # type: ignore[arg-type]
    assert kept_sequences(inputs, LossOptions(sequence_mask="geometric", **wide)).tolist() == [True, True]  # type: ignore[arg-type]


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("objective", ["ppo", "gspo"])
def test_a_nan_is_neither_weighed_away_nor_masked(objective: Objective, correction: Correction) -> None:
    inputs = case()
    bad = changed(inputs, behaviour=at(inputs.behaviour, 5, math.nan))
    options = LossOptions(objective=objective, correction=correction, sequence_mask="geometric")
    assert correction_weights(bad, options).values[5].isnan()
    assert kept_sequences(bad, options)[2]


def test_the_bounds_themselves_are_inside() -> None:
    """As far as float64 can say: a ratio of 1 in a band that is 1 wide."""
    inputs = case(on_policy=True)
    options = LossOptions(
        correction="icepop", icepop_low=1.0, icepop_high=1.0, sequence_mask="product", mask_low=1.0, mask_high=1.0
    )
    assert torch.equal(correction_weights(inputs, options).values, torch.ones_like(inputs.shares))
    assert kept_sequences(inputs, options).all()
