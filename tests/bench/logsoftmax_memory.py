"""Peak memory of log-probabilities with their gradient, against log_softmax of the whole logits in float32.

Each way in a process of its own: one decoder layer and the output layer of SmolLM2-135M (49,152 tokens) on 2,048
completion tokens. The peak is that of the resident memory, less what it was before the pass.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

TOKENS, VOCABULARY, TEMPERATURE = 2048, 49152, 0.9
CHUNK = 1 << 24
"""Elements of the logits that exist at once in the chunked way: 64 MiB of 384."""
TARGETS = {"logsoftmax_memory": 0.4, "logsoftmax_memory_whole": 0.7}

Pass = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Input ids [1, L] and targets [L] to log-probabilities [L]."""


def run() -> list[dict[str, Any]]:
    """`ratio` is our peak / the naive one: by chunks of rows, and whole with the gradient over the logits."""
    measured = {way: _in_a_child(way) for way in WAYS}
    rows = []
    for name, way in (("logsoftmax_memory", "chunked"), ("logsoftmax_memory_whole", "whole")):
        ratio = measured[way]["peak_mb"] / measured["naive"]["peak_mb"]
        detail = measured | {"cpu_s_ratio": round(measured[way]["cpu_s"] / measured["naive"]["cpu_s"], 3)}
        rows.append(
            {
                "name": name,
                "ratio": round(ratio, 3),
                "target": TARGETS[name],
                "holds": ratio <= TARGETS[name],
                "detail": detail,
            }
        )
    return rows


def _in_a_child(way: str) -> dict[str, float]:
    output = subprocess.run(
        [sys.executable, "-m", "tests.bench.logsoftmax_memory", way], check=True, capture_output=True, timeout=600
    ).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def _model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=1, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=TOKENS, tie_word_embeddings=True,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def _ours(logits: int) -> Pass:
    from learner.logprobs import CompletionLogprobs

    module = CompletionLogprobs(_model(), "off", logits)
    return lambda ids, targets: module(ids, torch.arange(ids.shape[1]), targets, TEMPERATURE)[0]


def _naive() -> Pass:
    model = _model()

    def logprobs(ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        scaled = model(input_ids=ids, use_cache=False).logits[0].float() / TEMPERATURE
        return scaled.log_softmax(-1).gather(-1, targets[:, None])[:, 0]

    return logprobs


WAYS: dict[str, Callable[[], Pass]] = {
    "naive": _naive,
    "whole": lambda: _ours(TOKENS * VOCABULARY),
    "chunked": lambda: _ours(CHUNK),
}


def _measure(way: str) -> dict[str, float]:
    torch.set_num_threads(1)
    logprobs = WAYS[way]()
    ids, targets = torch.randint(VOCABULARY, (2, TOKENS), generator=torch.Generator().manual_seed(1))
    logprobs(ids[None, :8], targets[:8]).sum().backward()  # gradients are there, libraries are loaded
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    logprobs(ids[None], targets).sum().backward()
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"peak_mb": round(peak / 1024, 1), "cpu_s": round(seconds, 2)}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
