"""`hero sft`: the cold-started policy that a run begins with."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from common.errors import DataError, ModelError
from common.families import PHRASES
from common.models import local_folder
from common.problems import load
from common.settings import Sections
from deploy.show import console


def sft(settings: Sections) -> int:
    """Trains the cold-started policy into sft.out; makes a new small policy when sft.base is empty."""
    import torch

    from learner import small_model
    from learner.sft import SFTOptions, train

    started = time.monotonic()
    out = settings.sft.out
    refuse_foreign(out)
    if settings.sft.base:
        base = local_folder(settings.sft.base, "sft.base")
    else:
        base = out.with_name(out.name + "-untrained")
        small_model.create(base, settings.run.seed, max_tokens=settings.actor.max_model_len, phrases=PHRASES)
    examples = _own_samples(settings, base) if settings.sft.source == "samples" else _solutions(settings)
    torch.set_num_threads(settings.sft.threads)
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


def _solutions(settings: Sections) -> list[tuple[str, str]]:
    problems, bad = load(settings, "sft", settings.sft.taken)
    examples = [(p.question, p.solution) for p in problems if p.solution]
    if not examples:
        raise DataError(
            "no worked solutions: set data.solution to the field that holds them, take families that have some, or "
            'train on the model\'s own samples: sft.source = "samples"'
        )
    left_out = f", {len(bad)} lines left out" if bad else ""
    console.print(f"cold start on {len(examples):,} worked solutions{left_out}", highlight=False)
    return examples


def _own_samples(settings: Sections, base: Path) -> list[tuple[str, str]]:
    """Right, terminated samples of the base model, as sft.filters has it."""
    from deploy.sampling import judged_samples
    from learner.own_samples import OwnSample, chosen

    s = settings.sft
    problems, _ = load(settings, "sft", s.taken)
    fit, sampled, right = judged_samples(settings, base, problems, s.completions)
    samples = [
        [OwnSample(p.question, one.text, ok, one.finish_reason == "stop") for one, ok in zip(group, oks, strict=True)]
        for p, group, oks in zip(fit, sampled, right, strict=True)
    ]
    total = sum(map(len, samples))
    examples, left_out = chosen(samples, s.examples, s.filters, s.language)
    told = ", ".join(f"{reason} {count:,}" for reason, count in left_out.most_common())
    console.print(f"cold start on {len(examples):,} of {total:,} own samples; left out: {told}", highlight=False)
    if not examples:
        raise DataError(
            f"none of {total:,} samples passes sft.filters = {', '.join(s.filters)} ({told}): raise sft.problems or "
            "sft.completions, take easier problems, or start from worked solutions"
        )
    return examples


def refuse_foreign(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / "config.json").is_file():
        raise ModelError(f"{out} holds files that are no model of ours; choose another folder")


def _report(file: Path, result: dict[str, Any], started: float) -> None:
    file.write_text(json.dumps(result | {"seconds_in_all": time.monotonic() - started}, indent=1))
