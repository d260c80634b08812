"""The bench of GPU shapes, at a shape that a CPU can take."""

from __future__ import annotations

import pytest
import torch

from tests.bench import gpu_shapes
from tests.bench.learner_scaling import SIZES


def test_what_it_measures() -> None:
    found = gpu_shapes.measured(SIZES["0.4M"], length=64, batch_tokens=256, steps=1, peak=1e12)
    assert found["tokens_per_s"] > 0 and 0 < found["mfu"] < 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: the bench itself runs")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(RuntimeError, match="needs a CUDA device"):
        gpu_shapes.run()
