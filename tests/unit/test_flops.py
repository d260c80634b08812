"""FLOPs against products counted by hand, and against torch's own counter on a real model."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from learner.flops import PEAK_BF16, Shape, batch_flops, flops_per_token, peak_flops, shape_of

TINY = Shape(layers=2, hidden=8, heads=4, kv_heads=2, head_dim=6, intermediate=16, vocabulary=10, tied=True)


def product(rows: int, inner: int, columns: int) -> int:
    """FLOPs of a matrix product: a multiplication and an addition each."""
    return sum(2 for _ in range(rows) for _ in range(inner) for _ in range(columns))


def by_hand(shape: Shape, tokens: int, predicted: int, shared: int = 0) -> int:
    """A forward pass over one sequence, product by product; logits for `predicted` of its tokens.

    The first `shared` of its tokens are in another sequence, whose layers compute them; attention needs all.
    """
    total, own = 0, tokens - shared
    for _ in range(shape.layers):
        total += product(own, shape.hidden, shape.heads * shape.head_dim)  # q
        total += 2 * product(own, shape.hidden, shape.kv_heads * shape.head_dim)  # k, v
        for _ in range(shape.heads):
            total += product(tokens, shape.head_dim, tokens)  # q k^T
            total += product(tokens, tokens, shape.head_dim)  # times v
        total += product(own, shape.heads * shape.head_dim, shape.hidden)  # o
        total += 2 * product(own, shape.hidden, shape.intermediate)  # gate, up
        total += product(own, shape.intermediate, shape.hidden)  # down
    return total + product(predicted, shape.hidden, shape.vocabulary)


@pytest.mark.parametrize("tokens", [1, 5, 12])
def test_a_tiny_config_by_hand(tokens: int) -> None:
    assert tokens * flops_per_token(TINY, tokens, passes=1) == by_hand(TINY, tokens, tokens)
    assert tokens * flops_per_token(TINY, tokens) == 3 * by_hand(TINY, tokens, tokens)


def test_a_batch_has_logits_where_completions_are() -> None:
    sequences = [(12, 4), (5, 5), (7, 1)]
    expected = 3 * sum(by_hand(TINY, width, completion) for width, completion in sequences)
    assert batch_flops(TINY, sequences) == expected
    assert batch_flops(TINY, sequences, passes=4) == pytest.approx(expected / 3 * 4)


def test_a_shared_prompt_passes_the_layers_once() -> None:
    """A prompt of 6 tokens with completions of 7, 3 and 1."""
    sequences = [(12, 7), (8, 3), (6, 1)]
    expected = by_hand(TINY, 12, 7) + by_hand(TINY, 8, 3, shared=6) + by_hand(TINY, 6, 1, shared=6)
    assert batch_flops(TINY, sequences, shared=12) == pytest.approx(3 * expected)
    assert batch_flops(TINY, sequences, passes=4, shared=12) == pytest.approx(4 * expected)


CONFIGS = [
    LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    ),
    Qwen3Config(
        vocab_size=128, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=3, head_dim=32, tie_word_embeddings=False,
    ),
]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=["llama, tied", "qwen3, head_dim of its own"])
def test_torchs_own_counter_on_a_real_model(config: PretrainedConfig) -> None:
    # Eager, because torch counts no FLOPs for its fused attention on a CPU.
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    shape = shape_of(config)
    assert shape is not None
    tokens = 24
    input_ids = torch.arange(tokens)[None] % config.vocab_size
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=input_ids, use_cache=False).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    assert forward == tokens * flops_per_token(shape, tokens, passes=1)
    assert counter.get_total_flops() == tokens * flops_per_token(shape, tokens)
    matrices = sum(p.numel() for p in model.parameters() if p.dim() >= 2)
    assert shape.parameters == matrices


def test_palms_formula_for_a_model_of_todays_size() -> None:
    """6 N + 12 L H Q T of appendix B, N without the embedding that is looked up: Qwen3-4B at 2,048 tokens."""
    shape = Shape(36, 2560, 32, 8, 128, 9728, 151936, tied=True)
    assert shape.parameters == pytest.approx(4.02e9, rel=0.001)
    assert flops_per_token(shape, 2048) == pytest.approx(6 * 4.02e9 + 12 * 36 * 32 * 128 * 2048, rel=0.001)


@pytest.mark.parametrize(
    "changes", [{"num_local_experts": 8}, {"num_experts": 64}, {"intermediate_size": [80, 160]}, {"hidden_size": None}]
)
def test_what_is_no_dense_decoder_has_no_shape(changes: dict[str, object]) -> None:
    plain = dict(vocab_size=96, hidden_size=64, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4)
    assert shape_of(SimpleNamespace(**plain)) is not None
    assert shape_of(SimpleNamespace(**plain | changes)) is None


def test_peaks_of_known_devices() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3") == peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12 and peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("cpu") is None and peak_flops("NVIDIA GeForce RTX 3060") is None
    assert all(math.isfinite(peak) and peak > 1e14 for peak in PEAK_BF16.values())
