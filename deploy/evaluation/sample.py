"""Models of one shape on the sets that each lacks: `python -m deploy.evaluation.sample OUT NAME FOLDER SET,SET ...`.

A process of its own, so that the engine's memory is free again before other models, or training, start; models that
differ in their weights alone follow each other in one engine. Settings and sets are in OUT; every set is written when
it is finished.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import config, logs
from common.errors import HeroError, RunFolderError
from common.models import identity
from common.progress import Bars
from common.settings import Sections
from deploy.evaluation import rows, sets
from deploy.evaluation.votes import Ballot, votes
from deploy.judging import judged, sandbox_of
from deploy.show import console
from scorer.sandbox import Item, Sandbox
from scorer.verifier import Verdict

if TYPE_CHECKING:
    from deploy.sampling import Completed, Sampler

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Wanted:
    """A model and the sets that it is asked."""

    name: str
    folder: Path
    sets: list[str]


def evaluate(settings: Sections, out: Path, models: Sequence[Wanted]) -> None:
    """Samples and judges; writes one result for each model and set, whose seconds add up to those of the whole."""
    from deploy.sampling import Sampler

    started = time.monotonic()
    weights = identity(models[0].name, models[0].folder)  # before they are read: if they change meanwhile, it shows
    with Bars(console=console) as progress, Sampler(settings, models[0].folder) as sampler:
        for model, following in zip(models, [*models[1:], None], strict=True):
            started = _one_model(settings, out, model, weights, sampler, progress, started)
            if following:
                weights = identity(following.name, following.folder)
                sampler.load(following.folder)


def _one_model(
    settings: Sections, out: Path, model: Wanted, weights: str, sampler: Sampler, progress: Bars, started: float
) -> float:
    """Returns when the last set was finished."""
    from learner.render import Renderer

    renderer = Renderer(model.folder, settings.data.system_prompt, settings.model.trust_remote_code)
    name = model.name
    for set_name in model.sets:
        held = sets.read(out, set_name)
        asked = rows.asked(settings, held)
        prompts = [renderer.prompt_ids(problem.question).tolist() for problem in held.problems]
        fit = [place for place, ids in enumerate(prompts) if len(ids) < asked.max_model_len]
        if len(fit) < len(prompts):
            console.print(
                f"{set_name}: {len(prompts) - len(fit)} of {len(prompts)} prompts leave no room in "
                f"actor.max_model_len = {asked.max_model_len} tokens; each counts as a problem not solved",
                highlight=False,
            )
        made = _sampled(sampler, asked, [prompts[place] for place in fit], progress, f"{name}, {set_name}")
        with sandbox_of(settings, held.about["verifier"]) as sandbox:
            found = dict(zip(fit, _judged(sandbox, held, fit, made, progress), strict=True))
        problems = [
            {
                "line": held.lines[place],
                "question": problem.question[: rows.TEXT_CHARS],
                "gold": problem.answer,
                "task": problem.meta.get("task"),
                "prompt_tokens": len(prompts[place]),
                **found.get(place, {"greedy": None, "samples": []}),
            }
            for place, problem in enumerate(held.problems)
        ]
        ended = time.monotonic()
        rows.write(out, rows.Result(name, set_name, str(model.folder), weights, asked, ended - started, problems))
        started = ended
    return started


def _sampled(
    sampler: Sampler, asked: rows.Asked, prompts: list[list[int]], progress: Bars, label: str
) -> list[list[Completed]]:
    """Of each prompt the greedy completion, then the samples."""
    import torch

    torch.manual_seed(asked.seed)  # the engine's generator: what was sampled before decides nothing

    def sample(what: str, completions: int, temperature: float, top_p: float) -> list[list[Completed]]:
        return sampler.sample(
            prompts,
            completions=completions,
            temperature=temperature,
            top_p=top_p,
            max_tokens=asked.max_tokens,
            progress=progress,
            description=f"{label}: {what}",
        )

    greedy, sampled = sample("greedy", 1, 0.0, 1.0), sample("samples", asked.samples, asked.temperature, asked.top_p)
    return [first + others for first, others in zip(greedy, sampled, strict=True)]


def _judged(
    sandbox: Sandbox, held: sets.HeldOut, fit: list[int], made: list[list[Completed]], progress: Bars
) -> list[dict[str, Any]]:
    """The part of a row that says what became of a problem, for those whose prompts fit."""
    repeated = [held.problems[place] for place, group in zip(fit, made, strict=True) for _ in group]
    verdicts = iter(judged(sandbox, repeated, [one.text for group in made for one in group], progress, "judging"))
    by_problem = [[next(verdicts) for _ in group] for group in made]
    ballots = [[Ballot(verdict.correct, verdict.extracted) for verdict in own[1:]] for own in by_problem]

    def same(pairs: Sequence[tuple[str, str]]) -> list[bool]:
        if sandbox.verifier == "task":  # reasoning-gym's scorer knows the gold answer alone
            return [False] * len(pairs)
        return [v.correct for v in sandbox.verify([Item(gold, f"\\boxed{{{given}}}") for gold, given in pairs])]

    return [
        {
            "greedy": _one(group[0], own[0]),
            "samples": [
                _one(one, verdict) | {"vote": vote}
                for one, verdict, vote in zip(group[1:], own[1:], numbers, strict=True)
            ],
        }
        for group, own, numbers in zip(made, by_problem, votes(ballots, same), strict=True)
    ]


def _one(completed: Completed, verdict: Verdict) -> dict[str, Any]:
    return {
        "status": verdict.status,
        "extracted": verdict.extracted,
        "tokens": completed.tokens,
        "finish": completed.finish_reason,
        "text": completed.text[-rows.TEXT_CHARS :],
    }


def main(arguments: Sequence[str]) -> int:
    logs.quiet_libraries()
    out, *triples = arguments
    models = [
        Wanted(name, Path(folder), own.split(","))
        for name, folder, own in zip(triples[::3], triples[1::3], triples[2::3], strict=True)
    ]
    try:
        settings = config.from_dump((Path(out) / SETTINGS).read_text())
        evaluate(settings, Path(out), models)
    except HeroError as error:
        return config.fail(error)
    except OSError as error:  # a full disk
        return config.fail(RunFolderError(f"{out} cannot be written: {error}; free some space, or give another folder"))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
