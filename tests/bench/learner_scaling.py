"""How the learner's step grows: tokens a second over batch tokens, tokens a second and memory over model size.

Each figure is measured in a process of its own, so that a peak is that of one size, and compared with what the cost
model says (`tests.bench.simulate.cost`): seconds are a + b * tokens, FLOPs a second are alike for all sizes, bytes are
those of weights, gradients, moments, activations and logits.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen3Config

from learner.flops import batch_flops, shape_of
from learner.footprint import FP32, training_bytes
from tests.bench.learner_step import SMOLLM2
from tests.bench.stage_times.fit import nonnegative_fit

ROOT = Path(__file__).resolve().parents[2]
SIZES: dict[str, PretrainedConfig] = {
    "0.4M": Qwen3Config(
        vocab_size=128, hidden_size=128, intermediate_size=384, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True,
    ),
    "10M": LlamaConfig(
        vocab_size=4096, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
    ),
    "135M": SMOLLM2,
}  # fmt: skip
BATCHES = (1024, 4096, 16384, 65536)
SIZE_TOKENS = 2048  # one micro-batch
MICRO_BATCH_TOKENS = 2048
PROMPT, COMPLETION = 40, 88
FED = PROMPT + COMPLETION - 1  # tokens of a sequence; 16 sequences to a micro-batch
STEPS = {"0.4M": 5, "10M": 3, "135M": 2}
DEADLINE_S = 900
GROWTH_TARGET, FLOPS_TARGET, MEMORY_TARGET = 1.15, 1.5, 1.25


def run() -> list[dict[str, Any]]:
    """Rows `learner_batch_tokens`, `learner_sizes` and `learner_memory`; each ratio is that of the worst case."""
    over_tokens = [_measured("0.4M", tokens) for tokens in BATCHES]
    over_sizes = {name: _measured(name, SIZE_TOKENS) for name in SIZES}
    return [_growth(over_tokens), _flops(over_sizes), _memory(over_sizes)]


def _growth(found: list[dict[str, float]]) -> dict[str, Any]:
    """Seconds of a step against a + b * tokens, fitted to these."""
    fixed, each = nonnegative_fit([([1.0, one["tokens"]], one["cpu_s"]) for one in found])
    errors = {f"{one['tokens']:.0f}": (fixed + each * one["tokens"]) / one["cpu_s"] for one in found}
    speed = {f"{one['tokens']:.0f}": round(one["tokens"] / one["cpu_s"]) for one in found}
    last = found[-1]["tokens"] / found[-1]["cpu_s"]
    detail = {
        "predicted / measured": _rounded(errors),
        "tokens_per_cpu_s": speed,
        "relative to the largest batch": _rounded({tokens: rate / last for tokens, rate in speed.items()}),
    }
    return _row("learner_batch_tokens", errors.values(), GROWTH_TARGET, detail)


def _flops(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Tokens a second of the largest against those at the FLOPs a second that the one in the middle reaches.

    The smallest is in the detail: its products are too small to fill a core.
    """
    rates = {}
    for name, one in found.items():
        shape = shape_of(SIZES[name])
        assert shape is not None
        sequences = round(one["tokens"] / FED)
        rates[name] = batch_flops(shape, [(FED, COMPLETION)] * sequences) / one["cpu_s"]
    errors = {name: rates["10M"] / rate for name, rate in rates.items()}
    detail = {
        "predicted / measured": _rounded(errors),
        "gflops_per_cpu_s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
        "tokens_per_cpu_s": {name: round(one["tokens"] / one["cpu_s"], 1) for name, one in found.items()},
    }
    return _row("learner_sizes", [errors["135M"]], FLOPS_TARGET, detail)


def _memory(found: dict[str, dict[str, float]]) -> dict[str, Any]:
    """What the larger ones take more than the smallest, at the peak of resident memory, against the cost model's bytes.

    All have libraries, allocators and buffers of their own in common, which no formula has.
    """
    parts = {}
    for name in found:
        shape = shape_of(SIZES[name])
        assert shape is not None
        parts[name] = training_bytes(shape, 1, 1, MICRO_BATCH_TOKENS, element=FP32, checkpointing=False)
        parts[name]["logits"] *= COMPLETION / FED
    predicted = {name: sum(some.values()) for name, some in parts.items()}
    more = [name for name in found if name != "0.4M"]
    errors = {
        name: (predicted[name] - predicted["0.4M"]) / (found[name]["peak_bytes"] - found["0.4M"]["peak_bytes"])
        for name in more
    }
    mib = {
        name: {part: round(size / 2**20) for part, size in parts[name].items()}
        | {"predicted": round(predicted[name] / 2**20), "peak": round(found[name]["peak_bytes"] / 2**20)}
        for name in found
    }
    return _row(
        "learner_memory", errors.values(), MEMORY_TARGET, {"predicted / measured": _rounded(errors), "mib": mib}
    )


def _row(name: str, errors: Any, target: float, detail: dict[str, Any]) -> dict[str, Any]:
    worst = max(max(error, 1 / error) for error in errors)
    return {"name": name, "ratio": round(worst, 3), "target": target, "holds": worst <= target, "detail": detail}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in values.items()}


def _measured(size: str, tokens: int) -> dict[str, float]:
    """{"tokens", "cpu_s" of a step, "peak_bytes"} from a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.bench.learner_scaling", size, str(tokens)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT, timeout=DEADLINE_S
    )
    print(f"{size}, {tokens} tokens: {done.stdout.splitlines()[-1]}", file=sys.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(size: str, tokens: int) -> dict[str, float]:
    """In this process, which must be fresh: a peak of resident memory never goes down."""
    import numpy as np
    import torch

    from learner import distributed
    from learner.batch import Sequence
    from learner.policy import Policy, PolicyOptions

    torch.set_num_threads(1)
    distributed.start()
    config, chance = SIZES[size], np.random.default_rng(0)
    ids = [chance.integers(0, config.vocab_size, PROMPT + COMPLETION) for _ in range(tokens // (PROMPT + COMPLETION))]
    flat = np.full(COMPLETION, -np.log(config.vocab_size), dtype=np.float32)
    batch = [Sequence(some[:PROMPT], some[PROMPT:], flat, float(chance.normal())) for some in ids]
    with tempfile.TemporaryDirectory() as folder:
        _write(config, Path(folder))
        policy = Policy(Path(folder), PolicyOptions(lr=1e-6, micro_batch_tokens=MICRO_BATCH_TOKENS, zero_stage=1))
        policy.step(batch, 1.0)  # allocates
        times = []
        for _ in range(STEPS[size]):
            begun = time.process_time()
            policy.step(batch, 1.0)
            times.append(time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"tokens": sum(sequence.width for sequence in batch), "cpu_s": statistics.median(times), "peak_bytes": peak}


def _write(config: PretrainedConfig, folder: Path) -> None:
    """In a process of its own: what making a model takes must not count as the learner's peak."""
    pid = os.fork()
    if not pid:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
