"""`hero sft` and `hero rm`: the policy and the reward model that a run starts from."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from common import tasks
from common.errors import DataError, ModelError
from common.models import local_folder
from common.problems import load
from common.progress import Bars
from common.settings import Sections
from deploy.prepare import fitting
from deploy.show import console


def sft(settings: Sections) -> int:
    """Trains the cold-started policy into sft.out; makes a new small policy when sft.base is empty."""
    import torch

    from learner import small_model
    from learner.sft import SFTOptions, train

    started = time.monotonic()
    torch.set_num_threads(settings.sft.threads)
    out = settings.sft.out
    _refuse_foreign(out)
    problems, bad = load(settings, "sft", settings.sft.examples)
    examples = [(p.question, p.solution) for p in problems if p.solution]
    if not examples:
        raise DataError(
            "no worked solutions: set data.solution to the field that holds them, or take families that have some"
        )
    console.print(
        f"cold start on {len(examples):,} worked solutions" + (f", {len(bad)} lines left out" if bad else ""),
        highlight=False,
    )
    if settings.sft.base:
        base = local_folder(settings.sft.base, "sft.base")
    else:
        base = out.with_name(out.name + "-untrained")
        small_model.create(
            base,
            settings.run.seed,
            max_tokens=settings.actor.max_model_len,
            phrases=tasks.PHRASES,
        )
    s = settings.sft
    options = SFTOptions(
        epochs=s.epochs,
        batch_tokens=s.batch_tokens,
        lr=s.lr,
        warmup_fraction=s.warmup_fraction,
        final_lr_fraction=s.final_lr_fraction,
        weight_decay=s.weight_decay,
        max_seconds=s.max_seconds,
        seed=settings.run.seed,
        max_tokens=s.max_tokens,
        system_prompt=settings.data.system_prompt or None,
    )
    result = train(base, out, examples, options)
    _report(out / "sft.json", result, started)
    console.print(
        f"cold-started policy in {out}: loss {result['loss']:.3f} after {result['steps']:,.0f} steps, "
        f"{result['seconds']:.0f} s",
        highlight=False,
    )
    return 0


def rm(settings: Sections) -> int:
    """Samples the policy, labels the samples, trains the reward model into rm.out."""
    import torch

    from deploy.evaluate import judge
    from deploy.sampling import Sampler
    from learner.render import Renderer
    from scorer.rm_train import LabelledGroup, Progress, RMOptions, train

    started = time.monotonic()
    r = settings.rm
    _refuse_foreign(r.out)
    policy = local_folder(settings.model.policy, "model.policy", settings.model.revision)
    problems, _ = load(settings, "rm", r.prompts)
    renderer = Renderer(policy, settings.data.system_prompt, settings.model.trust_remote_code)
    problems, prompts = fitting(problems, renderer, settings.data.max_prompt_tokens, console)
    with Bars(console=console) as progress, Sampler(settings, policy) as sampler:
        texts = sampler.sample(
            prompts,
            completions=r.completions,
            temperature=settings.sampling.temperature,
            progress=progress,
            description="sampling the policy",
        )
    repeated = [p for p in problems for _ in range(r.completions)]
    right = judge(settings, repeated, [t for group in texts for t in group], kind=r.label)
    n = r.completions
    groups = [LabelledGroup(p.question, texts[i], right[i * n : (i + 1) * n]) for i, p in enumerate(problems)]
    console.print(f"{len(right):,} labelled completions, {sum(right) / len(right):.1%} right", highlight=False)
    torch.set_num_threads(r.threads)
    with Bars(console=console) as progress:
        task = progress.add_task("reward model", total=100)

        def show(state: Progress) -> None:
            progress.update(task, completed=round(100 * state.fraction))

        result = train(
            policy,
            r.out,
            groups,
            RMOptions(
                epochs=r.epochs,
                lr=r.lr,
                batch_tokens=r.batch_tokens,
                holdout_fraction=r.holdout_fraction,
                seed=settings.run.seed,
                max_seconds=r.max_seconds,
                loss=r.loss,
                system_prompt=settings.reward_model.system_prompt,
            ),
            show,
        )
    _report(r.out / "rm.json", result, started)
    console.print(
        f"reward model in {r.out}: held-out AUROC {result['auroc']:.3f}, within prompts {result['auroc_within']:.3f} "
        f"({result['pairs_heldout']:.0f} completions of {result['prompts_heldout']:.0f} prompts)",
        highlight=False,
    )
    return 0


def _refuse_foreign(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise ModelError(f"{out} holds files that are no model of ours; choose another folder")


def _report(file: Path, result: dict[str, Any], started: float) -> None:
    file.write_text(json.dumps(result | {"seconds_in_all": time.monotonic() - started}, indent=1))
