"""Held-out accuracy of a model, greedy and sampled: `python -m deploy.evaluate SETTINGS MODEL OUT`.

A process of its own, so that the engine's memory is free again before training starts.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import config, logs
from common.errors import HeroError
from common.problems import load
from common.progress import Bars
from common.settings import Sections
from common.tasks import Problem
from deploy.prepare import fitting
from deploy.run_folder import write_atomically
from deploy.show import console


def evaluate(settings: Sections, model: Path) -> dict[str, Any]:
    """{"greedy": share, "sampled": share, "problems", "interval95", "by_task", "seconds"}."""
    from deploy.sampling import Sampler
    from learner.render import Renderer

    started = time.monotonic()
    problems, _ = load(settings, "eval", settings.eval.problems)
    renderer = Renderer(model, settings.data.system_prompt, settings.model.trust_remote_code)
    problems, prompts = fitting(problems, renderer, settings.data.max_prompt_tokens, console)
    temperatures = {"greedy": (0.0, 1.0), "sampled": (settings.eval.temperature, settings.eval.top_p)}
    texts: list[str] = []
    with Bars(console=console) as progress, Sampler(settings, model) as sampler:
        for name, (temperature, top_p) in temperatures.items():
            sampled = sampler.sample(
                prompts,
                completions=1,
                temperature=temperature,
                top_p=top_p,
                progress=progress,
                description=f"held-out, {name}",
            )
            texts += [one.text for (one,) in sampled]
    right = judge(settings, problems * len(temperatures), texts)
    n = len(problems)
    result: dict[str, Any] = {"problems": n, "model": str(model), "interval95": {}, "by_task": {}}
    for place, name in enumerate(temperatures):
        verdicts = right[place * n : (place + 1) * n]
        share = result[name] = sum(verdicts) / n
        result["interval95"][name] = 1.96 * math.sqrt(share * (1 - share) / n)
        by_task: dict[str, list[bool]] = {}
        for problem, ok in zip(problems, verdicts, strict=True):
            by_task.setdefault(problem.meta.get("task", "all"), []).append(ok)
        for task, oks in by_task.items():
            result["by_task"].setdefault(task, {})[name] = sum(oks) / len(oks)
    return result | {"seconds": time.monotonic() - started}


def judge(settings: Sections, problems: Sequence[Problem], texts: Sequence[str], kind: str | None = None) -> list[bool]:
    """Whether each completion is right: by the task's own scorer where the problem has one, else by math-verify."""
    from scorer.sandbox import Item
    from scorer.worker import make_sandbox

    kind = kind or ("task" if problems[0].meta.get("task") else "math")
    verifier = settings.verifier.model_copy(update={"kind": kind})
    with make_sandbox(settings.model_copy(update={"verifier": verifier})) as sandbox:
        items = [Item(p.answer, text, p.meta) for p, text in zip(problems, texts, strict=True)]
        return [verdict.status == "correct" for verdict in sandbox.verify(items)]


def main(arguments: Sequence[str]) -> int:
    logs.quiet_libraries()
    settings_file, model, out = (Path(a) for a in arguments)
    try:
        result = evaluate(config.from_dump(settings_file.read_text()), model)
    except HeroError as error:
        return config.fail(error)
    write_atomically(out, json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
