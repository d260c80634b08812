"""Samples many prompts at once with vLLM, outside of a run: for evaluation and for reward-model data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from actors.engine import Engine, EngineOptions
from common.settings import Sections


def sample(
    settings: Sections,
    model: Path,
    prompts: Sequence[Sequence[int]],
    *,
    completions: int,
    temperature: float,
    top_p: float = 1.0,
    progress: Progress,
    description: str,
) -> list[list[str]]:
    """Texts [prompts][completions]; temperature 0 is greedy. Shows a progress bar."""
    options = settings.actor
    sequences = options.groups_in_flight * settings.sampling.completions
    engine = Engine(
        EngineOptions(
            model=str(model),
            dtype=options.dtype,
            max_model_len=options.max_model_len,
            max_num_seqs=sequences,
            kv_cache_gib=options.kv_cache_gib,
            gpu_memory_utilization=options.gpu_memory_utilization,
            tensor_parallel=options.tensor_parallel,
            threads=options.threads,
            seed=settings.run.seed,
            trust_remote_code=settings.model.trust_remote_code,
        ),
        version=0,
    )
    texts = [[""] * completions for _ in prompts]
    waiting = iter(enumerate(prompts))
    in_flight = done = 0
    task = progress.add_task(description, total=len(prompts) * completions)
    try:
        while done < len(prompts) * completions:
            while in_flight < sequences and (following := next(waiting, None)):
                index, prompt = following
                engine.add(
                    str(index),
                    prompt,
                    n=completions,
                    temperature=temperature,
                    top_p=top_p,
                    max_tokens=settings.sampling.max_tokens,
                )
                in_flight += completions
            for sampled in engine.step():
                texts[int(sampled.request_id)][sampled.index] = sampled.text
                in_flight -= 1
                done += 1
                progress.update(task, completed=done)
    finally:
        engine.close()
    return texts
