"""Floating-point operations of a training step, and what devices can do: the two sides of MFU. Pure.

MFU is PaLM's model FLOPs utilization (arXiv:2204.02311, appendix B): the operations that the model asks for, over what
the devices could have done in the same time. What is computed beyond that (padding, activations that are computed
again) does not count, so less of it is a higher MFU.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

FORWARD_AND_BACKWARD = 3
"""In forward passes: the backward pass computes a gradient for the input and one for the weights of every product."""

PEAK_BF16 = {
    "B200": 2.25e15,  # Blackwell data sheet; all without sparsity, which doubles what data sheets print in large
    "H200": 989e12,  # nvidia.com/en-us/data-center/h200
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,  # SXM; nvidia.com/en-us/data-center/h100
    "L40S": 362e12,  # L40S data sheet
    "A100": 312e12,  # nvidia.com/en-us/data-center/a100
    "MI300X": 1307e12,  # AMD Instinct MI300X data sheet
}
"""FLOP/s of dense bfloat16 products by a part of the device's name; the first that fits holds."""


@dataclass(frozen=True)
class Shape:
    """A dense decoder with grouped-query attention and a gated MLP: Llama, Qwen2, Qwen3, Mistral."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    """Whether the embedding is the output layer, too."""

    @property
    def layer_weights(self) -> int:
        """Weights in the matrix products of one layer: q, k, v, o; gate, up, down."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    @property
    def head_weights(self) -> int:
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All that is kept and trained, but for norms and biases (about one in ten thousand)."""
        return self.layers * self.layer_weights + self.head_weights * (1 if self.tied else 2)


def shape_of(config: Any) -> Shape | None:
    """From a Hugging Face config of the text model; None for one of another kind, with experts for instance."""
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    values = [getattr(config, name, None) for name in names]
    if not all(isinstance(value, int) for value in values) or _experts(config):
        return None
    layers, hidden, heads, intermediate, vocabulary = values
    return Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or hidden // heads,
        intermediate=intermediate,
        vocabulary=vocabulary,
        tied=bool(getattr(config, "tie_word_embeddings", False)),
    )


def _experts(config: Any) -> bool:
    return any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


def flops_per_token(shape: Shape, context: float, passes: int = FORWARD_AND_BACKWARD) -> float:
    """FLOPs for one token that attends to `context` tokens: 6 N + 12 L H Q T for forward and backward together.

    arXiv:2204.02311, appendix B, with its convention that every token attends to the whole sequence, also under a
    causal mask. N are the weights in matrix products: the embedding is looked up and counts as the output layer alone.
    """
    products = 2 * (shape.layers * shape.layer_weights + shape.head_weights)
    attention = 4 * shape.layers * shape.heads * shape.head_dim * context
    return passes * (products + attention)


def batch_flops(
    shape: Shape, sequences: Iterable[tuple[int, int]], passes: int = FORWARD_AND_BACKWARD, shared: float = 0
) -> float:
    """FLOPs for sequences of (tokens that are fed, completion tokens): logits are for the completion's alone.

    `shared` tokens are in several sequences and pass the layers in one of them; attention computes them in each.
    """
    total = -passes * 2.0 * shape.layers * shape.layer_weights * shared
    for width, completion in sequences:
        total += width * flops_per_token(shape, width, passes)
        total -= passes * 2 * shape.head_weights * (width - completion)
    return total


def peak_flops(device_name: str) -> float | None:
    """Dense bfloat16 FLOP/s of a known device, such as "NVIDIA H100 80GB HBM3"; None for all others, CPUs too."""
    return next((peak for name, peak in PEAK_BF16.items() if name.lower() in device_name.lower()), None)
