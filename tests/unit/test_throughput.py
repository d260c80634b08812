"""How fast a step was, and that what is not known is left out and said once."""

from __future__ import annotations

import numpy as np
import pytest
from structlog.testing import capture_logs
from transformers import LlamaConfig, MixtralConfig, PretrainedConfig

from common.settings import LearnerSettings
from learner.batch import Sequence
from learner.flops import batch_flops, shape_of
from learner.throughput import Throughput

CONFIG = LlamaConfig(
    vocab_size=96, hidden_size=64, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2,
)  # fmt: skip


def sequence(prompt: int, completion: int) -> Sequence:
    return Sequence(np.zeros(prompt, int), np.zeros(completion, int), np.zeros(completion), 0.5)


BATCH = [sequence(4, 9), sequence(4, 1), sequence(7, 3)]


def throughput(
    config: PretrainedConfig = CONFIG, device: str = "NVIDIA H200", ranks: int = 1, **options: object
) -> Throughput:
    return Throughput(config, device, ranks, LearnerSettings(**{"dtype": "bfloat16"} | options))


def test_tokens_a_second_and_mfu_of_all_ranks() -> None:
    with capture_logs() as logs:
        found = throughput(ranks=2).metrics(BATCH, seconds=0.5, shared=0.0)
    assert found["tokens_per_second"] == (12 + 4 + 9) / 0.5
    flops = batch_flops(shape_of(CONFIG), [(12, 9), (4, 1), (9, 3)])
    assert found["mfu"] == pytest.approx(flops / (0.5 * 2 * 989e12)) and logs == []


def test_what_is_not_computed_is_trained_on_all_the_same_but_is_no_work() -> None:
    found = throughput().metrics(BATCH, seconds=0.5, shared=4 / 25)
    assert found["tokens_per_second"] == 25 / 0.5
    flops = batch_flops(shape_of(CONFIG), [(12, 9), (4, 1), (9, 3)], shared=4)
    assert found["mfu"] == pytest.approx(flops / (0.5 * 989e12))


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        ({"mini_steps": 4}, 4),
        ({"kl_coefficient": 0.1}, 4),
        ({"lora_rank": 8}, 2),
        ({"lora_rank": 8, "mini_steps": 4}, 3),
    ],
)
def test_passes_that_are_needed_count_and_no_others(options: dict[str, int], passes: int) -> None:
    """Proximal and reference log-probabilities are a forward pass each; frozen weights have no gradient."""
    plain = throughput().metrics(BATCH, 1.0, 0.2)["mfu"]
    assert throughput(**options).metrics(BATCH, 1.0, 0.2)["mfu"] == pytest.approx(plain * passes / 3)


@pytest.mark.parametrize(
    ("config", "device", "dtype", "says"),
    [
        (CONFIG, "cpu", "float32", "peak"),
        (CONFIG, "NVIDIA H200", "float32", "peak"),
        (MixtralConfig(), "NVIDIA H200", "bfloat16", "dense"),
    ],
)
def test_where_it_is_not_known_there_is_no_mfu_and_one_line_says_so(
    config: PretrainedConfig, device: str, dtype: str, says: str
) -> None:
    with capture_logs() as logs:
        unknown = throughput(config, device, dtype=dtype)
        found = [unknown.metrics(BATCH, 1.0, 0.0) for _ in range(3)]
    assert found == [{"tokens_per_second": 25.0}] * 3
    assert len(logs) == 1 and says in logs[0]["event"]
