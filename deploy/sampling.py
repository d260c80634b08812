"""Samples many prompts at once with vLLM, outside of a run: for evaluation and for reward-model data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from actors.engine import Engine
from actors.worker import engine_options
from common.progress import Bars
from common.settings import Sections


class Sampler:
    """The engine that an actor of these settings would have; starting it takes some ten seconds."""

    def __init__(self, settings: Sections, model: Path) -> None:
        options = engine_options(settings, model, settings.run.seed)
        self._room = options.max_num_seqs
        self._max_tokens = settings.sampling.max_tokens
        self._engine = Engine(options, version=0)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._engine.close()

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        completions: int,
        temperature: float,
        top_p: float = 1.0,
        progress: Bars,
        description: str,
    ) -> list[list[str]]:
        """Texts [prompts][completions]; temperature 0 is greedy. Shows a progress bar."""
        texts = [[""] * completions for _ in prompts]
        waiting = iter(enumerate(prompts))
        in_flight = done = 0
        task = progress.add_task(description, total=len(prompts) * completions)
        while done < len(prompts) * completions:
            while in_flight < self._room and (following := next(waiting, None)):
                index, prompt = following
                self._engine.add(
                    str(index),
                    prompt,
                    n=completions,
                    temperature=temperature,
                    top_p=top_p,
                    max_tokens=self._max_tokens,
                )
                in_flight += completions
            for sampled in self._engine.step():
                texts[int(sampled.request_id)][sampled.index] = sampled.text
                in_flight -= 1
                done += 1
                progress.update(task, completed=done)
        return texts
