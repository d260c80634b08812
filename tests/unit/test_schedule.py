import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.schedule import factor


def test_the_rate_rises_to_its_full_height_and_stays() -> None:
    rates = [factor(step, warmup_steps=4, total_steps=10, shape="constant", final=0.0) for step in range(12)]
    assert rates == [0.25, 0.5, 0.75, 1.0] + [1.0] * 8


def test_linear_falls_by_the_same_amount_each_step_to_what_is_left_at_the_end() -> None:
    rates = [factor(step, warmup_steps=2, total_steps=12, shape="linear", final=0.1) for step in range(15)]
    assert rates[1] == rates[2] == 1.0
    assert [rates[step] - rates[step + 1] for step in range(2, 12)] == pytest.approx([0.09] * 10)
    assert rates[12:] == pytest.approx([0.1] * 3)


def test_cosine_is_half_a_cosine() -> None:
    for step in range(21):
        slow = 0.2 + 0.8 * (1 + math.cos(math.pi * step / 20)) / 2
        assert factor(step, warmup_steps=0, total_steps=20, shape="cosine", final=0.2) == pytest.approx(slow)


@given(
    st.floats(0, 1e6), st.floats(0, 1e5), st.floats(0, 1e6), st.sampled_from(["constant", "linear", "cosine"]),
    st.floats(0, 1),
)  # fmt: skip
def test_no_setting_leaves_the_range(step: float, warmup: float, total: float, shape: str, final: float) -> None:
    rate = factor(step, warmup_steps=warmup, total_steps=total, shape=shape, final=final)  # type: ignore[arg-type]
    assert 0.0 <= rate <= 1.0
