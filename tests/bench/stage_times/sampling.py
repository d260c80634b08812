"""What an actor takes: an engine step by what runs in it, the start of a group, new weights."""

from __future__ import annotations

import statistics
from pathlib import Path

from actors.engine import Engine
from actors.worker import engine_options
from common.settings import Sections
from learner.publisher import check_sequences
from learner.render import Renderer
from tests.bench.stage_times.fit import Row, Stopwatch, nonnegative_fit
from tests.bench.stages import Group

REPEATS = 3


def measure(settings: Sections, groups: list[Group]) -> dict[str, float]:
    """decode_step_s, decode_sequence_s, decode_context_s, start_group_s, recompute_token_s, load_s."""
    sampler = _Sampler(settings, groups)
    full, longest = settings.actor.groups_in_flight, sampler.longest
    sampler.session(full, longest)  # the first calls
    rows, recompute = [], []
    for _ in range(REPEATS):
        for count in sorted({1, max(1, full // 4), full}):
            rows += [sampler.session(count, 2), sampler.session(count, longest)]
        _, plain_s = rows[-1]
        _, updated_s = sampler.session(full, longest, update_at=longest // 2)
        recompute.append((updated_s - plain_s) / sampler.cached_at_update)
    names = ("decode_step_s", "decode_sequence_s", "decode_context_s", "start_group_s")
    found = dict(zip(names, nonnegative_fit(rows), strict=True))
    return found | {"recompute_token_s": max(0.0, statistics.median(recompute)), "load_s": sampler.load_s()}


class _Sampler:
    def __init__(self, settings: Sections, groups: list[Group]) -> None:
        self._export = settings.run.folder / "export"
        self._engine = Engine(engine_options(settings, self._export, 0), version=0)
        self._vllm = self._engine._vllm
        self._clock = Stopwatch(settings.actor.threads)
        self._completions = settings.sampling.completions
        renderer = Renderer(Path(settings.model.policy), settings.data.system_prompt)
        self._check = [ids.tolist() for ids in check_sequences(renderer, (group["question"] for group in groups))]
        self._prompts = [renderer.prompt_ids(group["question"]).tolist() for group in groups]
        room = settings.actor.max_model_len - max(map(len, self._prompts)) - 1
        self.longest = max(4, min(settings.sampling.max_tokens, room) // 2)
        """Tokens of the completions of a long session."""
        self.cached_at_update = 0
        self._started = 0

    def session(self, count: int, tokens: int, update_at: int = -1) -> Row:
        """`count` groups from their prompts to `tokens` tokens of each completion; an update after so many steps.

        What counts: engine steps, completions in them, tokens in their caches, groups.
        """
        params = self._vllm.sampling_params(temperature=1.0, max_tokens=tokens, ignore_eos=True, logprobs=0)
        self._started += count
        prompts = [self._prompts[(self._started + i) % len(self._prompts)] for i in range(count)]
        running, prompt_tokens = count * self._completions, self._completions * sum(map(len, prompts))
        self._clock.start()
        for i, prompt in enumerate(prompts):
            keys = [f"{self._started}-{i}-{j}" for j in range(self._completions)]
            self._vllm.add(keys, prompt, params)
        left, steps = running, 0
        while left:
            if steps == update_at:
                self._vllm.pause()  # forgets keys and values, as an update does
                self._vllm.resume()
                self.cached_at_update = prompt_tokens + steps * running
            left -= len(self._vllm.step())
            steps += 1
        cached = steps * prompt_tokens + running * steps * (steps - 1) / 2
        return [steps, steps * running, cached, count], self._clock.stop()

    def load_s(self) -> float:
        """Weights loaded and checked while nothing runs."""
        found = []
        for version in range(1, REPEATS + 2):
            self._clock.start()
            self._engine.load(self._export, version)
            self._engine.prompt_logprobs(self._check)
            found.append(self._clock.stop())
        return statistics.median(found[1:])
