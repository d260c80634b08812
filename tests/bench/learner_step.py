"""CPU-seconds of a learner step against a plain torch loop on the same tokens.

The plain loop is no straw man: same micro-batches (built beforehand, where the learner builds its own inside
the step), logits at completion positions only, no attention mask, fused AdamW. What is left is what DeepSpeed
and our wrapper add.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from learner.batch import MicroBatch, Sequence, micro_batches
from learner.policy import Policy, PolicyOptions

PAIRS = 20
TEMPERATURE = 0.9
LR = 1e-6

SMALL = Qwen3Config(
    vocab_size=128,
    hidden_size=128,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    max_position_embeddings=512,
    tie_word_embeddings=True,
)
SMOLLM2 = LlamaConfig(  # SmolLM2-135M
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
)


def run() -> list[dict[str, Any]]:
    """One row for each size: `ratio` is the median over pairs of learner / plain CPU-seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, idle OpenMP threads spin and their CPU-seconds count
    try:
        return [
            measure("learner_step_small", SMALL, target=1.25, sequences=256, prompt=40, completion=60),
            measure("learner_step_smollm2", SMOLLM2, target=1.1, sequences=8, prompt=60, completion=68),
        ]
    finally:
        torch.set_num_threads(threads)


def measure(
    name: str,
    config: PretrainedConfig,
    *,
    target: float,
    sequences: int,
    prompt: int,
    completion: int,
    micro_batch_tokens: int = 4096,
    pairs: int = PAIRS,
) -> dict[str, Any]:
    """Interleaved steps of both on `sequences` of about `prompt` + `completion` tokens, 20 % up or down."""
    batch = random_sequences(sequences, prompt, completion, config.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        policy = Policy(Path(folder), PolicyOptions(lr=LR, micro_batch_tokens=micro_batch_tokens))
        plain, ready = plain_loop(Path(folder)), tensors(micro_batches(batch, micro_batch_tokens))
    steps: dict[str, Callable[[], object]] = {
        "learner": lambda: policy.step(batch, TEMPERATURE),
        "plain": lambda: plain(ready),
    }
    for step in steps.values():  # the first step allocates
        step()
    seconds: dict[str, list[float]] = {"learner": [], "plain": []}
    for pair in range(pairs):
        for side in sorted(steps, reverse=pair % 2 == 1):
            start = time.process_time()
            steps[side]()
            seconds[side].append(time.process_time() - start)
    ratios = [ours / theirs for ours, theirs in zip(seconds["learner"], seconds["plain"], strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return {
        "name": name,
        "ratio": round(median, 4),
        "target": target,
        "holds": median <= target,
        "detail": {
            "pairs": pairs,
            "quartiles": [round(low, 4), round(high, 4)],
            "learner_cpu_s": round(statistics.median(seconds["learner"]), 4),
            "plain_cpu_s": round(statistics.median(seconds["plain"]), 4),
            "tokens": sum(sequence.width for sequence in batch),
            "micro_batch_tokens": micro_batch_tokens,
        },
    }


def random_sequences(count: int, prompt: int, completion: int, vocabulary: int, spread: float = 0.2) -> list[Sequence]:
    """Of about `prompt` + `completion` tokens, each up to `spread` longer or shorter."""
    generator = np.random.default_rng(0)

    def tokens(mean: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return generator.integers(0, vocabulary, int(generator.uniform(1 - spread, 1 + spread) * mean))

    result = []
    for _ in range(count):
        answer = tokens(completion)
        behaviour = np.full(len(answer), -np.log(vocabulary), dtype=np.float32)
        result.append(Sequence(tokens(prompt), answer, behaviour, float(generator.normal())))
    return result


Tensors = list[list[torch.Tensor]]
"""One step: input_ids, positions, targets, behaviour, advantages of each micro-batch."""


def tensors(batches: list[MicroBatch]) -> Tensors:
    """What a plain step reads; see `MicroBatch` for the shapes."""
    names = ("input_ids", "positions", "targets", "behaviour", "advantages")
    return [[torch.from_numpy(getattr(batch, name)) for name in names] for batch in batches]


def plain_loop(folder: Path) -> Callable[[Tensors], None]:
    """The same policy gradient step as one would write it without DeepSpeed."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)

    def step(batches: Tensors) -> None:
        tokens = sum(len(targets) for _, _, targets, _, _ in batches)
        for input_ids, positions, targets, behaviour, advantages in batches:
            hidden = model.model(input_ids=input_ids, use_cache=False)[0].flatten(0, 1)[positions]
            scaled = model.lm_head(hidden) / TEMPERATURE
            logprobs = scaled.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
            ratio = (logprobs - logprobs.detach()).exp()
            weight = (logprobs.detach() - behaviour).exp().clamp(max=2.0)
            gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
            (-(weight * gain).sum() / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step
