"""A sampler without a model, for the volume of a soak: same interface as `actors.engine.Engine`, no weights, no vLLM.

Deterministic: what it samples follows from prompt and index alone. Half of its answers are right, so that nearly every
group moves the weights.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actors.engine import LoadTimes, Sampled

STEPS_A_COMPLETION = 6
STEP_S = 0.05  # so that kills find groups in progress


class FastEngine:
    """Takes requests, and ends each after a few steps."""

    def __init__(self, vocabulary: int, version: int = 0) -> None:
        self._vocabulary = vocabulary
        self._version = version
        self._running: dict[tuple[str, int], tuple[list[int], int, int, float]] = {}

    @property
    def busy(self) -> bool:
        return bool(self._running)

    def add(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        *,
        n: int,
        temperature: float,
        max_tokens: int,
        top_p: float = 1.0,
    ) -> None:
        for index in range(n):
            self._running[request_id, index] = (list(prompt_ids), max_tokens, 0, time.perf_counter())

    def step(self) -> list[Sampled]:
        time.sleep(STEP_S)
        ended = []
        for key, (prompt, limit, done, started) in list(self._running.items()):
            if done + 1 < STEPS_A_COMPLETION:
                self._running[key] = prompt, limit, done + 1, started
                continue
            del self._running[key]
            ended.append(self._sampled(key, prompt, limit, time.perf_counter() - started))
        return ended

    def abort(self, request_ids: Sequence[str]) -> None:
        for key in [key for key in self._running if key[0] in set(request_ids)]:
            del self._running[key]

    def load(self, weights: Path, version: int, adapters: Path | None = None, scale: float = 0.0) -> LoadTimes:
        self._version = version
        return LoadTimes(0.0, 0.0, 0.0, 0.0)

    def prompt_logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        return [np.zeros(len(sequence) - 1, np.float32) for sequence in sequences]

    def close(self) -> None:
        self._running.clear()

    def _sampled(self, key: tuple[str, int], prompt: list[int], limit: int, seconds: float) -> Sampled:
        request, index = key
        seed = zlib.crc32(repr((prompt, index)).encode())
        generator = np.random.default_rng(seed)
        length = int(generator.integers(1, limit))
        return Sampled(
            request_id=request,
            index=index,
            token_ids=generator.integers(0, self._vocabulary, length).tolist(),
            logprobs=[-1.0] * length,
            versions=[(length, self._version)],
            finish_reason="stop",
            text=f"\\boxed{{{seed % 2}}}",
            seconds=seconds,
        )
