"""The KL estimators against sums over a whole distribution: what they estimate, and where their gradients lead."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.loss_inputs import KLEstimator, LossInputs, LossOptions
from learner.penalties import divergence, penalty
from tests import slow_loss
from tests.loss_cases import case, cases, changed, gradient, sequences

ESTIMATORS: list[KLEstimator] = ["k1", "k2", "k3"]


def slow_kl(p: list[float], q: list[float]) -> float:
    return math.fsum(x * math.log(x / y) for x, y in zip(p, q, strict=True))


def policies(seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits of pi over seven tokens, with gradient, and of the reference."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(7, generator=generator, dtype=torch.float64)
    other = logits + spread * torch.randn(7, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), other


@pytest.mark.parametrize("estimator", ESTIMATORS)
@given(inputs=cases)
def test_penalty_equals_scalar_loops(estimator: KLEstimator, inputs: LossInputs) -> None:
    options = LossOptions(kl_coefficient=0.3, kl_estimator=estimator, entropy_coefficient=0.01)
    tokens = [t for y in sequences(inputs) for t in y]
    expected = [0.3 * slow_loss.divergence(t.pi, t.ref, estimator) - 0.01 * t.entropy for t in tokens]
    assert penalty(inputs, options).tolist() == pytest.approx(expected, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_k1_and_k3_are_unbiased(seed: int) -> None:
    logits, other = policies(seed)
    p, q = logits.softmax(-1), other.softmax(-1)
    for estimator in ("k1", "k3"):
        mean = (p * divergence(p.log() - q.log(), estimator)).sum().item()  # type: ignore[arg-type]
        assert mean == pytest.approx(slow_kl(p.tolist(), q.tolist()), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_gradients_of_the_estimators_as_a_loss(seed: int) -> None:
    """Averaged over the tokens that pi samples: k1 none, k2 that of KL(pi, ref), k3 that of KL(ref, pi)."""
    logits, other = policies(seed)
    p, q = logits.softmax(-1), other.softmax(-1)

    def of(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    expected = {
        "k1": torch.zeros_like(other),
        "k2": of((p * (p.log() - q.log())).sum()),
        "k3": of((q * (q.log() - p.log())).sum()),
    }
    for estimator in ESTIMATORS:
        found = of((p.detach() * divergence(p.log() - q.log(), estimator)).sum())
        assert torch.allclose(found, expected[estimator], atol=1e-12), estimator
    assert not torch.allclose(expected["k2"], expected["k3"], rtol=0.05)


@given(seed=st.integers(0, 2**32))
def test_near_the_reference_k2_and_k3_pull_alike(seed: int) -> None:
    logits, other = policies(seed, spread=1e-4)
    log_ratio = logits.log_softmax(-1) - other.log_softmax(-1)
    k2, k3 = (
        torch.autograd.grad(divergence(log_ratio, estimator).sum(), logits, retain_graph=True)[0]
        for estimator in ("k2", "k3")
    )  # type: ignore[arg-type]
    assert torch.allclose(k2, k3, atol=1e-6)


@given(d=st.floats(-80, 80, width=32))
def test_k2_and_k3_are_never_negative(d: float) -> None:
    for dtype in (torch.float32, torch.float64):
        for estimator in ("k2", "k3"):
            assert divergence(torch.tensor(d, dtype=dtype), estimator) >= 0  # type: ignore[arg-type]


@given(inputs=cases, coefficient=st.floats(1e-4, 1.0))
def test_the_entropy_bonus_raises_entropy(inputs: LossInputs, coefficient: float) -> None:
    _, of_entropy = gradient(inputs, LossOptions(entropy_coefficient=coefficient))
    assert torch.allclose(of_entropy, -coefficient * inputs.shares, rtol=1e-12)


@given(inputs=cases)
def test_without_coefficients_there_is_none(inputs: LossInputs) -> None:
    assert not penalty(changed(inputs, reference=None), LossOptions()).any()


def test_a_penalty_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match=r"kl_coefficient = 0\.1 without a reference"):
        penalty(changed(case(), reference=None), LossOptions(kl_coefficient=0.1))
