"""The learner on one GPU at the shapes of real models, random weights: tokens a second and MFU by sequence length.

bfloat16 with float32 masters, activation checkpointing, one rank, sequences as long as the length says, half of each
the completion. MFU counts 6 FLOPs a weight and token and full attention (`learner.flops`), nothing for recomputation.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, Qwen3Config

from learner.batch import Sequence
from learner.flops import batch_flops, peak_flops, shape_of
from learner.policy import Policy, PolicyOptions

ROOT = Path(__file__).resolve().parents[2]
SHAPES: dict[str, PretrainedConfig] = {
    "1.7B": Qwen3Config(
        vocab_size=151936, hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True,
    ),
    "4B": Qwen3Config(
        vocab_size=151936, hidden_size=2560, intermediate_size=9728, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, tie_word_embeddings=True,
    ),
}  # fmt: skip
TARGETS = {2048: 0.147, 8192: 0.147, 16384: 0.147}
"""MFU by length; what a peer publishes for 4 B parameters on eight H200 at 16k tokens."""
BATCH_TOKENS, STEPS, WARM_UP = 65536, 4, 2
DEADLINE_S = 1800


def run() -> list[dict[str, Any]]:
    """Rows `gpu_SHAPE_LENGTH`; `ratio` is the target MFU / the measured one. RuntimeError without a CUDA device."""
    if not torch.cuda.is_available():
        raise RuntimeError("the bench gpu_shapes needs a CUDA device, and this machine has none: run it on a GPU node")
    return [_row(name, length) for name in SHAPES for length in TARGETS]


def _row(name: str, length: int) -> dict[str, Any]:
    """In a process of its own, so that a peak of memory is that of one case."""
    command = [sys.executable, "-m", "tests.bench.gpu_shapes", name, str(length)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=DEADLINE_S)
    found = json.loads(done.stdout.splitlines()[-1])
    ratio = TARGETS[length] / found["mfu"]
    return {
        "name": f"gpu_{name}_{length}",
        "ratio": round(ratio, 3),
        "target": 1.0,
        "holds": ratio <= 1.0,
        "detail": found,
    }


def measured(config: PretrainedConfig, length: int, batch_tokens: int, steps: int, peak: float) -> dict[str, float]:
    """Tokens a second, MFU against `peak` FLOP/s, and peak GPU memory of steps on random sequences of `length`."""
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(folder)
        del model
        options = PolicyOptions(lr=1e-6, dtype="bfloat16", micro_batch_tokens=length, gradient_checkpointing=True)
        policy = Policy(Path(folder), options)
    generator = np.random.default_rng(0)
    seconds = []
    for _ in range(WARM_UP + steps):
        batch = [_sequence(generator, length, config.vocab_size) for _ in range(max(1, batch_tokens // length))]
        started = time.perf_counter()
        policy.step(batch, 1.0)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    step_s = statistics.median(seconds[WARM_UP:])
    shape = shape_of(config)
    assert shape is not None
    flops = batch_flops(shape, [(one.width, len(one.completion_ids)) for one in batch])
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {
        "tokens_per_s": sum(one.width for one in batch) / step_s,
        "mfu": flops / (step_s * peak),
        "peak_gb": memory / 1e9,
    }


def _sequence(generator: np.random.Generator, length: int, vocabulary: int) -> Sequence:
    ids = generator.integers(0, vocabulary, length + 1)
    half = length // 2
    behaviour = np.full(length + 1 - half, -np.log(vocabulary), np.float32)
    return Sequence(ids[:half], ids[half:], behaviour, float(generator.normal()))


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    known = peak_flops(torch.cuda.get_device_name())
    assert known is not None, f"no peak is known for {torch.cuda.get_device_name()}: see learner/flops.py"
    print(json.dumps(measured(SHAPES[sys.argv[1]], int(sys.argv[2]), BATCH_TOKENS, STEPS, known)))
