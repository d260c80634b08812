"""Sampled tokens per second through the actor against the same vLLM engine driven bare.

Both sample the same kind of groups with as many sequences in flight, in one process and on one engine. The actor
follows a policy, takes tickets from a real server, keeps their leases and hands whole groups over. The bare loop
is vLLM's own LLMEngine, add_request and step, at its cheapest settings; it replaces single sequences where the actor
takes groups, and throws away what comes out. The actor reads the core without LLMEngine's output processor and may
be the faster one. The policy is untrained and ends a completion at about one token in a hundred, so that lengths
differ within a group as they do in training.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from actors.engine import Engine, EngineOptions
from actors.worker import Actor
from common.deliveries import Delivery
from common.families import PHRASES
from common.schema import Rollout, Scored
from common.server import LocalServer
from common.settings import Sections
from common.streams import Broker
from learner import small_model
from tests.make import published_model, ticket

TARGET = 0.9
ROUNDS = 5
GROUPS = 128  # of one round and side: four times what is in flight
GROUPS_IN_FLIGHT, COMPLETIONS = 32, 8
PROMPT_TOKENS, MAX_TOKENS, MAX_MODEL_LEN = 32, 64, 256
TEMPERATURE = 1.0

Sampler = Callable[[], int]
"""Samples what was prepared; returns its tokens."""
Rate = tuple[float, float]
"""Tokens per wall second, and per CPU-second of this process."""


def run() -> dict[str, Any]:
    """`ratio`: median over interleaved rounds of tokens/s through the actor / bare."""
    rates: dict[str, list[Rate]] = {"actor": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder, _both_sides(Path(folder)) as prepare:
        for side in prepare:  # first calls; the actor loads its policy
            prepare[side](0, GROUPS_IN_FLIGHT)()
        for turn in range(1, ROUNDS + 1):
            for side in sorted(prepare, reverse=turn % 2 == 1):
                rates[side].append(_timed(prepare[side](turn, GROUPS)))
    wall, cpu = ([a[i] / b[i] for a, b in zip(rates["actor"], rates["bare"], strict=True)] for i in (0, 1))
    ratio = statistics.median(wall)
    return {
        "name": "actor",
        "ratio": round(ratio, 4),
        "target": TARGET,
        "holds": ratio >= TARGET,
        "detail": {
            "rounds": [round(value, 3) for value in wall],
            "cpu_ratio": round(statistics.median(cpu), 4),
            "actor_tokens_per_s": round(statistics.median(rate for rate, _ in rates["actor"])),
            "bare_tokens_per_s": round(statistics.median(rate for rate, _ in rates["bare"])),
            "groups_per_round": GROUPS,
            "sequences_in_flight": GROUPS_IN_FLIGHT * COMPLETIONS,
        },
    }


def _timed(sample: Sampler) -> Rate:
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sample()
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu)


@contextmanager
def _both_sides(folder: Path) -> Iterator[dict[str, Callable[[int, int], Sampler]]]:
    """By side: (seed, groups) -> what samples them; only that is timed."""
    model = folder / "model"
    small_model.create(model, 0, max_tokens=MAX_MODEL_LEN, phrases=PHRASES)
    options = EngineOptions(str(model), max_model_len=MAX_MODEL_LEN, max_num_seqs=GROUPS_IN_FLIGHT * COMPLETIONS)
    with LocalServer(folder / "broker", memory_mb=512) as server:
        engine = Engine(options, version=0)
        through = ThroughActor(engine, model, server.url)
        try:
            yield {"actor": through.prepare, "bare": lambda seed, groups: lambda: _bare(engine, seed, groups)}
        finally:
            through.actor.close()


def prompt(seed: int, group: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """int32 [PROMPT_TOKENS]; no two groups share one, so the prefix cache helps within a group, as in training."""
    return np.random.default_rng([seed, group]).integers(6, 100, PROMPT_TOKENS).astype(np.int32)


def _bare(engine: Engine, seed: int, groups: int) -> int:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    vllm = engine._vllm._llm
    params = SamplingParams(
        temperature=TEMPERATURE,
        max_tokens=MAX_TOKENS,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
    waiting = iter([prompt(seed + 1000, group).tolist() for group in range(groups) for _ in range(COMPLETIONS)])
    in_flight = added = tokens = 0
    while True:
        while in_flight < GROUPS_IN_FLIGHT * COMPLETIONS and (ids := next(waiting, None)):
            vllm.add_request(str(added), {"type": "token", "prompt_token_ids": ids}, params)
            in_flight, added = in_flight + 1, added + 1
        if not in_flight:
            return tokens
        for output in vllm.step():
            tokens += len(output.outputs[0].token_ids)
            in_flight -= 1


class _Counting(Broker):
    """Asks the actor to stop when it has handed over `left` groups; `tokens` counts what was in groups."""

    left = tokens = 0

    def hand_over_together(
        self, results: Sequence[tuple[Delivery, Rollout | Scored]], momentum: float = 0.0
    ) -> list[bool]:
        published = super().hand_over_together(results, momentum)
        self.left -= sum(published)
        rollouts = (one for (_, one), done in zip(results, published, strict=True) if done)
        self.tokens += sum(len(c.ids) for one in rollouts if isinstance(one, Rollout) for c in one.completions)
        if not self.left:
            self.stop.set()
        return published


class ThroughActor:
    """The actor with all that it does in a run, and the learner's side of the streams."""

    def __init__(self, engine: Engine, model: Path, url: str, run: str = "bench", **options: object) -> None:
        """`options` of the [actor] section."""
        self.learner = Broker(url, run, "learner")
        self.learner.check()
        self.incarnation = self.learner.take_over()
        self.learner.announce(published_model(model.with_name(f"{model.name}-{run}"), model, self.incarnation))
        self._broker = _Counting(url, run, "actor", stop=threading.Event())
        actor = {"groups_in_flight": GROUPS_IN_FLIGHT, "max_model_len": MAX_MODEL_LEN, **options}
        sampling = {"completions": COMPLETIONS, "temperature": TEMPERATURE, "max_tokens": MAX_TOKENS}
        settings = Sections.model_validate({"actor": actor, "sampling": sampling})
        self.actor = Actor(settings, self._broker, engine, self._broker.stop)
        self._run, self._issued = run, 0

    def prepare(self, seed: int, groups: int) -> Sampler:
        """Puts the tickets up."""
        for group in range(groups):
            order = ticket(
                self._run,
                self._issued + group,
                prompt_ids=prompt(seed, group),
                completions=COMPLETIONS,
                temperature=TEMPERATURE,
                max_tokens=MAX_TOKENS,
                incarnation=self.incarnation,
            )
            self.learner.issue(order)
        self._issued += groups
        self._broker.left = groups
        return self._sample

    def _sample(self) -> int:
        before = self._broker.tokens
        self._broker.stop.clear()
        self.actor.loop()
        return self._broker.tokens - before


if __name__ == "__main__":
    print(run())
