"""Samples many prompts at once with vLLM, outside of a run: for evaluation, a cold start, and reward-model data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from actors.engine import Engine
from actors.worker import engine_options
from common.progress import Bars
from common.settings import Sections
from common.tasks import Problem
from deploy.judging import judged, kind_for, sandbox_of
from deploy.prepare import fitting
from deploy.show import console
from learner.render import Renderer
from scorer.verifier import Kind


@dataclass(frozen=True)
class Completed:
    """One completion without its log-probabilities, which over a whole data set would fill the memory."""

    text: str
    tokens: int
    finish_reason: str


class Sampler:
    """The engine that an actor of these settings would have; starting it takes some ten seconds."""

    def __init__(self, settings: Sections, model: Path) -> None:
        options = engine_options(settings, model, settings.run.seed)
        self._room = options.max_num_seqs
        self._version = 0
        self._engine = Engine(options, self._version)

    def __enter__(self) -> Sampler:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._engine.close()

    def load(self, model: Path) -> None:
        """Takes the weights of another model of the same shape."""
        self._version += 1
        self._engine.load(model, self._version)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        completions: int,
        temperature: float,
        max_tokens: int,
        top_p: float = 1.0,
        progress: Bars,
        description: str,
    ) -> list[list[Completed]]:
        """[prompts][completions]; temperature 0 is greedy. Shows a progress bar."""
        found: list[dict[int, Completed]] = [{} for _ in prompts]
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
                    max_tokens=max_tokens,
                )
                in_flight += completions
            for sampled in self._engine.step():
                found[int(sampled.request_id)][sampled.index] = Completed(
                    sampled.text, len(sampled.token_ids), sampled.finish_reason
                )
                in_flight -= 1
                done += 1
                progress.update(task, completed=done)
        return [[group[index] for index in range(completions)] for group in found]


def judged_samples(
    settings: Sections, model: Path, problems: Sequence[Problem], completions: int, kind: Kind | None = None
) -> tuple[list[Problem], list[list[Completed]], list[list[bool]]]:
    """The problems whose prompts fit, their samples at the run's temperature, and which of them are right.

    kind: of the verifier, as `verifier.kind`; None: that of the problems.
    """
    renderer = Renderer(model, settings.data.system_prompt, settings.model.trust_remote_code)
    fit, prompts = fitting(problems, renderer, settings.data.max_prompt_tokens, console)
    with Bars(console=console) as progress:
        with Sampler(settings, model) as sampler:
            sampled = sampler.sample(
                prompts,
                completions=completions,
                temperature=settings.sampling.temperature,
                max_tokens=settings.sampling.max_tokens,
                progress=progress,
                description=f"sampling {model.name}",
            )
        repeated = [problem for problem in fit for _ in range(completions)]
        texts = [one.text for group in sampled for one in group]
        with sandbox_of(settings, kind or kind_for(settings, fit)) as sandbox:
            verdicts = judged(sandbox, repeated, texts, progress, "judging")
    right = [verdict.correct for verdict in verdicts]
    return fit, sampled, [right[start : start + completions] for start in range(0, len(right), completions)]
