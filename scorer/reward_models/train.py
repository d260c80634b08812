"""Trains a reward model: a fresh one-label head on a causal model's backbone, both trained on verified samples."""

from __future__ import annotations

import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid
from transformers import AutoModelForSequenceClassification

from common.errors import DataError, ModelError
from scorer.reward_models.classifier import logits
from scorer.reward_models.known import Usage
from scorer.reward_models.labelled import LabelledGroup
from scorer.reward_models.measure import Loss, Quality, measure
from scorer.reward_models.rendering import batches, encode, load_tokenizer

MAX_GRAD_NORM = 1.0
WARMUP_FRACTION = 0.05
WEIGHT_DECAY = 0.01


@dataclass(frozen=True)
class RMOptions:
    epochs: int = 2
    lr: float = 5e-4
    batch_tokens: int = 8192
    """Padded tokens of one optimizer step."""
    holdout_fraction: float = 0.1
    """Share of the prompts that is kept out and measured."""
    seed: int = 0
    max_seconds: float | None = None
    """Training ends by then, the learning rate having come down to 0."""
    loss: Loss = "logistic"
    """logistic: correct or not, each completion alone. bradley_terry: correct above wrong, within a prompt."""
    usage: Usage = field(default_factory=Usage)
    """What goes around question and completion."""


@dataclass(frozen=True)
class Progress:
    fraction: float
    """Of the training, in [0, 1]; by steps or by time, whichever ends it first."""
    step: int
    loss: float
    seconds: float
    phase: str = "training"
    """Or "measuring: held out", with the fraction of that."""


@dataclass(frozen=True)
class _Sample:
    ids: list[int]
    prompt: int
    label: bool


@dataclass(frozen=True)
class Trained:
    """What was trained on, and how well it came out."""

    pairs: int
    """(question, completion) trained on."""
    prompts: int
    too_long: int
    """Left out: over the model's positions."""
    steps: int
    loss: float
    """Its running mean at the end."""
    seconds: float
    quality: dict[str, Quality]
    """"held out": on the prompts that were kept out; then each further set by its name."""


def train(
    backbone: Path,
    out: Path,
    examples: Sequence[LabelledGroup],
    options: RMOptions,
    progress: Callable[[Progress], None] = lambda _: None,
    further: Mapping[str, Sequence[LabelledGroup]] | None = None,
) -> Trained:
    """Trains on `backbone`, writes the model folder `out`, and measures it on prompts that it has not seen.

    further: more labelled sets to measure it on, by name. Raises DataError without two labels, ModelError for an
    unusable folder.
    """
    start = time.monotonic()
    if out.exists() and not (out / "config.json").is_file() and any(out.iterdir()):
        raise ModelError(f"{out} exists and is no model folder; give another folder for the reward model")
    tokenizer = load_tokenizer(backbone)
    torch.manual_seed(options.seed)
    try:
        model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1, dtype=torch.float32)
    except (ValueError, OSError, RuntimeError) as error:
        raise ModelError(f"{backbone} cannot carry a reward model's head ({error}); give a causal model") from error
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    samples = _samples(tokenizer, examples, options.usage)
    fitting = [sample for sample in samples if len(sample.ids) <= limit]
    trained, heldout = _split(fitting, options)
    if len({sample.label for sample in trained}) < 2:
        raise DataError(
            f"{len(trained)} labelled completions to train on, all with the same label or none at all; sample more "
            "completions, or easier or harder problems"
        )
    steps, loss = _fit(model, trained, options, start, progress)
    _save(model, tokenizer, out)
    sets = {"held out": heldout}
    for name, groups in (further or {}).items():
        sets[name] = [s for s in _samples(tokenizer, groups, options.usage) if len(s.ids) <= limit]
    return Trained(
        pairs=len(trained),
        prompts=len({sample.prompt for sample in trained}),
        too_long=len(samples) - len(fitting),
        steps=steps,
        loss=loss,
        seconds=time.monotonic() - start,
        quality={name: _quality(model, name, chosen, options, progress) for name, chosen in sets.items()},
    )


def _quality(
    model: Any, name: str, samples: Sequence[_Sample], options: RMOptions, progress: Callable[[Progress], None]
) -> Quality:
    scores, done = np.zeros(len(samples)), 0
    model.eval()
    with torch.inference_mode():
        for batch in batches([len(sample.ids) for sample in samples], options.batch_tokens):
            scores[batch] = logits(model, [samples[place].ids for place in batch]).double().cpu().numpy()
            done += len(batch)
            progress(Progress(done / len(samples), 0, math.nan, 0.0, f"measuring: {name}"))
    labels = np.array([sample.label for sample in samples], dtype=bool)
    prompts = np.array([sample.prompt for sample in samples], dtype=np.int64)
    return measure(labels, scores, prompts, options.loss, options.seed)


def _samples(tokenizer: Any, examples: Sequence[LabelledGroup], usage: Usage) -> list[_Sample]:
    """All completions as tokens; groups of the same question share one prompt number."""
    numbers: dict[str, int] = {}
    pairs, facts = [], []
    for group in examples:
        prompt = numbers.setdefault(group.question, len(numbers))
        for completion, label in zip(group.completions, group.labels, strict=True):
            pairs.append((group.question, completion))
            facts.append((prompt, bool(label)))
    encoded = encode(tokenizer, pairs, usage)
    return [_Sample(ids, prompt, label) for ids, (prompt, label) in zip(encoded, facts, strict=True)]


def _split(samples: Sequence[_Sample], options: RMOptions) -> tuple[list[_Sample], list[_Sample]]:
    """Held out by prompt, never by completion: siblings in training would flatter the figure."""
    prompts = sorted({sample.prompt for sample in samples})
    random.Random(options.seed).shuffle(prompts)  # noqa: S311
    kept_out = set(prompts[: math.ceil(len(prompts) * options.holdout_fraction)] if len(prompts) > 1 else [])
    return [s for s in samples if s.prompt not in kept_out], [s for s in samples if s.prompt in kept_out]


def _fit(
    model: Any, samples: Sequence[_Sample], options: RMOptions, start: float, progress: Callable[[Progress], None]
) -> tuple[int, float]:
    """Returns (steps, running mean of the loss)."""
    rng = random.Random(options.seed)  # noqa: S311
    epochs = [list(_epoch(samples, options, rng)) for _ in range(options.epochs)]
    plan = [batch for epoch in epochs for batch in epoch]
    if not plan:
        raise DataError("no prompt has both a correct and a wrong completion; bradley_terry needs such, use logistic")
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=WEIGHT_DECAY)
    model.train()
    mean_loss = math.nan
    for step, batch in enumerate(plan):
        seconds = time.monotonic() - start
        fraction = step / len(plan)
        if options.max_seconds is not None:
            fraction = max(fraction, seconds / options.max_seconds)
        if fraction >= 1:
            return step, mean_loss
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min((step + 1) / (WARMUP_FRACTION * len(plan) + 1), 1 - fraction)
        loss = _loss(logits(model, [sample.ids for sample in batch]), batch, options.loss)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        mean_loss = loss.item() if step == 0 else 0.95 * mean_loss + 0.05 * loss.item()
        progress(Progress(fraction, step + 1, mean_loss, seconds))
    return len(plan), mean_loss


def _epoch(samples: Sequence[_Sample], options: RMOptions, rng: random.Random) -> Iterator[list[_Sample]]:
    """All samples once, in random batches of about equal lengths; bradley_terry keeps a prompt together."""
    if options.loss == "bradley_terry":
        by_prompt: dict[int, list[_Sample]] = {}
        for sample in samples:
            by_prompt.setdefault(sample.prompt, []).append(sample)
        units = [group for group in by_prompt.values() if len({sample.label for sample in group}) == 2]
    else:
        units = [[sample] for sample in samples]
    rng.shuffle(units)
    # A unit weighs as its padded rows; jitter mixes neighbours anew in each epoch.
    lengths = [max(len(s.ids) for s in unit) * len(unit) for unit in units]
    packed = batches([round(length * rng.uniform(0.9, 1.1)) for length in lengths], options.batch_tokens)
    rng.shuffle(packed)
    for batch in packed:
        yield [sample for place in batch for sample in units[place]]


def _loss(scores: torch.Tensor, batch: Sequence[_Sample], kind: str) -> torch.Tensor:
    label = torch.tensor([sample.label for sample in batch], device=scores.device)
    if kind == "logistic":
        return binary_cross_entropy_with_logits(scores, label.float())
    prompt = torch.tensor([sample.prompt for sample in batch], device=scores.device)
    paired = label[:, None] & ~label[None, :] & (prompt[:, None] == prompt[None, :])
    return -logsigmoid(scores[:, None] - scores[None, :])[paired].mean()


def _save(model: Any, tokenizer: Any, out: Path) -> None:
    """Written beside its place and moved there, so that `out` is never half a model."""
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.config.pad_token_id = tokenizer.pad_token_id  # for other readers; ours choose their own
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    if out.exists():
        shutil.rmtree(out)
    part.rename(out)
