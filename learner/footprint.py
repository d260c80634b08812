"""Bytes of a model's weights, optimizer, activations and caches, from its shape. Pure.

Compared with the learner's memory on a CPU by `python -m tests.bench learner_scaling`.
"""

from __future__ import annotations

from learner.flops import Shape

BF16, FP32 = 2, 4
ELEMENT_BYTES = {"bfloat16": BF16, "float32": FP32}
LOGITS_CHUNK_BYTES = (1 << 26) * FP32  # `learner.logprobs`


def training_bytes(
    shape: Shape, stage: int, ranks: int, tokens: int, element: int = BF16, checkpointing: bool = True
) -> dict[str, float]:
    """Bytes on one rank at the peak of a step with micro-batches of `tokens`, by what they hold.

    ZeRO (arXiv:1910.02054) divides the optimizer's state over ranks from stage 1, gradients from 2, weights from 3.
    With float32 weights there is no master copy without ZeRO, and one as of stage 1, as DeepSpeed keeps it.
    """
    p, layer = shape.parameters, _layer_activations(shape) * tokens * element
    master = FP32 * p if element == BF16 or stage else 0
    return {
        "weights": element * p / (ranks if stage >= 3 else 1),
        "gradients": FP32 * p / (ranks if stage >= 2 else 1),
        "optimizer": (master + 2 * FP32 * p) / (ranks if stage >= 1 else 1),
        "activations": shape.layers * shape.hidden * tokens * element + layer
        if checkpointing
        else shape.layers * layer,
        "logits": shape.vocabulary * tokens * element + LOGITS_CHUNK_BYTES
        if element == BF16
        else shape.vocabulary * tokens * element,
    }


def _layer_activations(shape: Shape) -> int:
    """Values of a token that a layer keeps for its backward pass: two norms and what goes into them, q, k, v before and
    after rotation, what attention gives, gate, up, their product."""
    heads = shape.head_dim * (3 * shape.heads + 3 * shape.kv_heads)
    return 6 * shape.hidden + heads + 4 * shape.intermediate


def kv_bytes(shape: Shape, element: int = BF16) -> int:
    """Of one token in an actor's cache."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * element


def checkpoint_bytes(shape: Shape, stage: int, element: int) -> float:
    """Of one checkpoint, whatever the ranks: the weights and what the optimizer keeps of them."""
    kept = training_bytes(shape, stage, 1, 0, element)
    return kept["weights"] + kept["optimizer"]


def adapter_parameters(shape: Shape, rank: int) -> int:
    """Weights of low-rank adapters on all linear layers but the output: rank * (in + out) each."""
    wide, narrow = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = 2 * (shape.hidden + wide) + 2 * (shape.hidden + narrow)
    return rank * shape.layers * (attention + 3 * (shape.hidden + shape.intermediate))
