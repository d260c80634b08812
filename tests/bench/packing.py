"""CPU-seconds of a learner step with packed sequences against one with padded rows of like lengths.

Lengths of completions spread as far as those of GSM8K's solutions. Each has a prompt of its own, or eight of them
share one as in a group. The larger model gets fewer, for the time it takes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from learner.batch import Sequence
from learner.policy import Policy, PolicyOptions
from tests.bench.learner_step import LR, SMALL, SMOLLM2, TEMPERATURE, random_sequences

SPREAD = 0.7
"""Up and down: a standard deviation of 0.4 of the mean."""
GROUP = 8


def run() -> list[dict[str, Any]]:
    """One row for each size: `ratio` is the median over pairs of packed / padded CPU-seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, idle OpenMP threads spin and their CPU-seconds count
    try:
        return [
            measure("packing_small", SMALL, _apart(SMALL, 256, 40, 60), pairs=12, tokens=8192),
            measure("packing_smollm2", SMOLLM2, _apart(SMOLLM2, 16, 60, 125), pairs=4, tokens=2048),
            measure("packing_groups_small", SMALL, _groups(SMALL, 256, 50, 38), pairs=12, tokens=8192),
            measure("packing_groups_smollm2", SMOLLM2, _groups(SMOLLM2, 16, 100, 100), pairs=4, tokens=2048),
        ]
    finally:
        torch.set_num_threads(threads)


def _apart(config: PretrainedConfig, count: int, prompt: int, completion: int) -> list[Sequence]:
    return random_sequences(count, prompt, completion, config.vocab_size, SPREAD)


def _groups(config: PretrainedConfig, count: int, prompt: int, completion: int) -> list[Sequence]:
    prompts = random_sequences(count // GROUP, prompt, completion, config.vocab_size)
    whole = random_sequences(count, prompt, completion, config.vocab_size, SPREAD)
    return [replace(one, prompt_ids=prompts[place // GROUP].prompt_ids) for place, one in enumerate(whole)]


def measure(name: str, config: PretrainedConfig, batch: list[Sequence], *, pairs: int, tokens: int) -> dict[str, Any]:
    """Interleaved steps of both on the same sequences, `tokens` to a micro-batch."""
    ways: tuple[Literal["auto", "off"], ...] = ("auto", "off")
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        policies = {
            way: Policy(Path(folder), PolicyOptions(lr=LR, micro_batch_tokens=tokens, packing=way)) for way in ways
        }
    metrics = {way: policy.step(batch, TEMPERATURE).metrics for way, policy in policies.items()}  # the first allocates
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for pair in range(pairs):
        for way in sorted(ways, reverse=pair % 2 == 1):
            start = time.process_time()
            policies[way].step(batch, TEMPERATURE)
            seconds[way].append(time.process_time() - start)
    ratio = statistics.median(ours / theirs for ours, theirs in zip(seconds["auto"], seconds["off"], strict=True))
    shown = ("micro_batches", "padding_share", "attention_padding_share", "shared_prompt_share")
    return {
        "name": name,
        "ratio": round(ratio, 4),
        "target": 1.0,
        "holds": ratio <= 1.0,
        "detail": {
            "packed_cpu_s": round(statistics.median(seconds["auto"]), 3),
            "padded_cpu_s": round(statistics.median(seconds["off"]), 3),
            "packed": {key: round(float(metrics["auto"][key]), 4) for key in shown},
            "padded": {key: round(float(metrics["off"][key]), 4) for key in shown},
            "micro_batch_tokens": tokens,
            "pairs": pairs,
        },
    }
