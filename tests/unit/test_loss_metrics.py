"""Metrics of the loss against loops in plain Python."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.loss import policy_loss
from learner.loss_inputs import LossInputs, LossOptions
from learner.loss_metrics import RATIO_EDGES, summarize
from tests import slow_loss
from tests.loss_cases import Token, at, case, cases, changed, sequences

OPTIONS = [
    LossOptions(sequence_mask="geometric", mask_low=0.9, mask_high=1.1),
    LossOptions(objective="gspo", clip_low=0.05, clip_high=0.05, correction="icepop", icepop_low=0.9, icepop_high=1.1),
    LossOptions(objective="cispo", correction="none", sequence_mask="product", mask_low=0.5, mask_high=2.0),
    LossOptions(correction="decoupled"),
]


def histogram(ratios: list[float]) -> list[int]:
    counts = [0] * (len(RATIO_EDGES) + 1)
    for ratio in ratios:
        counts[sum(ratio > edge for edge in RATIO_EDGES)] += 1
    return counts


def slow(batch: list[list[Token]], o: LossOptions) -> dict[str, float]:
    every = [t for y in batch for t in y]
    kept = [y for y in batch if slow_loss.kept(y, o)]
    clips = [row for y in kept for row in slow_loss.OBJECTIVES[o.objective](y, o)]
    weights = [row for y in kept for row in slow_loss.weights(y, o)]
    raw = [math.exp(t.prox - t.mu) for t in every]
    count = len(every)
    return {
        "loss": slow_loss.loss(batch, o)[0],
        "tokens": count,
        "clip_share_low": sum(low for _, _, low, _ in clips) / count,
        "clip_share_high": sum(high for _, _, _, high in clips) / count,
        "ratio_mean": sum(math.exp(t.pi - t.prox) for t in every) / count,
        "correction_weight_mean": sum(weight for weight, _, _ in weights) / count,
        "correction_capped_share": sum(capped for _, capped, _ in weights) / count,
        "correction_zeroed_share": sum(zeroed for _, _, zeroed in weights) / count,
        "masked_sequence_share": 1 - len(kept) / len(batch),
        "kl_behaviour": sum(slow_loss.divergence(t.mu, t.pi, "k3") for t in every) / count,
        "kl_proximal": sum(slow_loss.divergence(t.prox, t.pi, "k3") for t in every) / count,
        "kl_reference": sum(slow_loss.divergence(t.pi, t.ref, "k3") for t in every) / count,
        "entropy": sum(t.entropy for t in every) / count,
        "logprob_difference_mean": sum(abs(t.prox - t.mu) for t in every) / count,
        "logprob_difference_max": max(abs(t.prox - t.mu) for t in every),
        "ess": sum(raw) ** 2 / sum(w * w for w in raw) / count,
    }


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: options.objective + "-" + options.correction)
@given(inputs=cases)
def test_equal_scalar_loops(options: LossOptions, inputs: LossInputs) -> None:
    metrics = summarize(policy_loss(inputs, options)[1])
    counts = metrics.pop("ratio_histogram")
    assert metrics == pytest.approx(slow(sequences(inputs), options), rel=1e-6, abs=1e-9)
    assert counts == histogram([math.exp(t.pi - t.mu) for y in sequences(inputs) for t in y])


def test_the_histogram_is_bounded_and_has_one_in_its_middle() -> None:
    on_policy = summarize(policy_loss(case(on_policy=True), LossOptions())[1])["ratio_histogram"]
    middle = len(RATIO_EDGES) // 2
    assert isinstance(on_policy, list)
    assert on_policy[middle] == sum(on_policy) == 25
    assert RATIO_EDGES[middle - 1] * RATIO_EDGES[middle] == pytest.approx(1.0)
    assert RATIO_EDGES[0] < 1 / 16 and RATIO_EDGES[-1] > 16 and len(on_policy) == 35


@given(place=st.integers(0, 24), value=st.sampled_from([-math.inf, -1e4, 1e4]))
def test_one_token_beyond_all_numbers_makes_no_mean_infinite(place: int, value: float) -> None:
    inputs = case()
    metrics = summarize(policy_loss(changed(inputs, behaviour=at(inputs.behaviour, place, value)), LossOptions())[1])
    beyond = {name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)}
    assert beyond == ({"logprob_difference_mean", "logprob_difference_max"} if value == -math.inf else set())


def test_they_are_json() -> None:
    line = json.dumps(summarize(policy_loss(case(), LossOptions())[1]), allow_nan=False)
    assert '"ratio_histogram": [' in line


def test_a_sequence_without_counted_tokens_is_none() -> None:
    inputs = case(0, (2, 2))
    inputs = changed(inputs, shares=torch.tensor([0.5, 0.5, 0.0, 0.0]), behaviour=inputs.behaviour + 9.0)
    options = LossOptions(sequence_mask="geometric", mask_low=0.5, mask_high=2.0)
    metrics = summarize(policy_loss(inputs, options)[1])
    assert (metrics["masked_sequence_share"], metrics["tokens"]) == (1.0, 2.0)
