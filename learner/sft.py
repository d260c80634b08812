"""Cold start: supervised fine-tuning of any causal LM on (question, worked solution) pairs.

Plain torch. The loss counts solution tokens only; batches hold examples of like length under a
token budget, so that little padding is computed; the learning rate warms up and then falls
linearly, to `final_lr_fraction` of itself, over whatever ends first, the epochs or the seconds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import TextColumn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from common.errors import DataError
from common.progress import Bars
from learner.optimizer import adamw
from learner.schedule import factor

_IGNORED = -100  # the label that cross_entropy skips
_MAX_GRADIENT_NORM = 1.0
_BETAS = (0.9, 0.99)
_BATCHES_PER_BUCKET = 32  # examples are sorted by length inside so many batches' worth

Encoded = tuple[list[int], int]
"""Token ids of prompt and solution, and how many of them are prompt."""


@dataclass(frozen=True)
class SFTOptions:
    """How a cold start is trained; `SFTOptions(epochs=2, lr=2e-5)` for a pretrained model."""

    epochs: int = 20
    batch_tokens: int = 4_096
    """Tokens of one optimizer step, padding included."""
    lr: float = 1e-3
    warmup_fraction: float = 0.05
    final_lr_fraction: float = 0.0
    weight_decay: float = 0.01
    max_seconds: float | None = None
    """Training ends here even if epochs are left; the learning rate's schedule ends with it."""
    seed: int = 0
    max_tokens: int = 512
    """Longer examples are left out and counted."""
    system_prompt: str | None = None


def train(
    model_folder: Path,
    out_folder: Path,
    examples: Sequence[tuple[str, str]],
    options: SFTOptions,
    progress: Callable[[int, int, float], None] | None = None,
) -> dict[str, float]:
    """Train the model in `model_folder` on `examples`, save it with its tokenizer to `out_folder`.

    `progress(step, expected_steps, loss)` replaces the progress bar. Returns `steps`, `epochs`,
    `seconds`, `loss` (mean of the last tenth of the steps), `examples`, `too_long` and `tokens`.
    Raises DataError when no example is left to train on.
    """
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    encoded = [encode(tokenizer, *example, options.system_prompt) for example in examples]
    kept = [item for item in encoded if len(item[0]) <= options.max_tokens]
    if not kept:
        raise DataError(
            f"none of {len(examples)} worked solutions fits {options.max_tokens} tokens; "
            "give shorter examples or raise max_tokens"
        )
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if progress is None:
        with Bars(TextColumn("loss {task.fields[loss]:.3f}")) as bar:
            task = bar.add_task("cold start", total=None, loss=float("nan"))

            def show(step: int, total: int, loss: float) -> None:
                bar.update(task, completed=step, total=total, loss=loss)

            summary = _fit(model, kept, pad, options, show)
    else:
        summary = _fit(model, kept, pad, options, progress)
    model.save_pretrained(out_folder)
    tokenizer.save_pretrained(out_folder)
    return {**summary, "examples": len(kept), "too_long": len(encoded) - len(kept)}


def encode(tokenizer: PreTrainedTokenizerBase, question: str, solution: str, system_prompt: str | None) -> Encoded:
    """Token ids of the chat-rendered prompt followed by the solution and the end token."""
    messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages.append({"role": "user", "content": question})
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer.encode(rendered, add_special_tokens=False)
    answer = [*tokenizer.encode(solution, add_special_tokens=False), tokenizer.eos_token_id]
    return prompt + answer, len(prompt)


def batches(encoded: Sequence[Encoded], batch_tokens: int, rng: random.Random) -> list[list[int]]:
    """One epoch's batches as indices: shuffled, of like length, padded size at most `batch_tokens`.

    An example that alone exceeds the budget is a batch of its own.
    """
    order = list(range(len(encoded)))
    rng.shuffle(order)
    mean_length = sum(len(ids) for ids, _ in encoded) / len(encoded)
    bucket = max(1, int(_BATCHES_PER_BUCKET * batch_tokens / mean_length))
    made: list[list[int]] = []
    for start in range(0, len(order), bucket):
        by_length = sorted(order[start : start + bucket], key=lambda index: len(encoded[index][0]))
        batch: list[int] = []
        for index in by_length:
            if batch and len(encoded[index][0]) * (len(batch) + 1) > batch_tokens:
                made.append(batch)
                batch = []
            batch.append(index)
        made.append(batch)
    rng.shuffle(made)
    return made


def _endless(encoded: Sequence[Encoded], batch_tokens: int, rng: random.Random) -> Iterator[list[int]]:
    while True:
        yield from batches(encoded, batch_tokens, rng)


def _fit(
    model: Any,
    encoded: Sequence[Encoded],
    pad: int,
    options: SFTOptions,
    progress: Callable[[int, int, float], None],
) -> dict[str, float]:
    rng = random.Random(options.seed)  # noqa: S311 - order of examples, nothing secret
    optimizer = adamw(model, options.lr, _BETAS, options.weight_decay)
    model.train()
    started, step, tokens = time.monotonic(), 0, 0
    losses: list[float] = []
    steps_per_epoch = len(batches(encoded, options.batch_tokens, random.Random(0)))  # noqa: S311
    total = steps_per_epoch * options.epochs
    for batch in _endless(encoded, options.batch_tokens, rng):
        done = _fraction_done(step, total, time.monotonic() - started, options.max_seconds)
        if step and done >= 1.0:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.lr * factor(
                done * total,
                warmup_steps=options.warmup_fraction * total,
                total_steps=total,
                shape="linear",
                final=options.final_lr_fraction,
            )
        loss, count = _loss(model, [encoded[index] for index in batch], pad)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), _MAX_GRADIENT_NORM)
        optimizer.step()
        optimizer.zero_grad()
        step, tokens = step + 1, tokens + count
        losses.append(loss.item())
        progress(step, max(step, round(step / max(done, 1 / total))), losses[-1])
    tail = losses[-max(1, len(losses) // 10) :]
    return {
        "steps": step,
        "epochs": step / steps_per_epoch,
        "seconds": time.monotonic() - started,
        "loss": sum(tail) / len(tail),
        "tokens": tokens,
    }


def _loss(model: Any, items: Sequence[Encoded], pad: int) -> tuple[torch.Tensor, int]:
    """Mean cross-entropy of the solution tokens; the number of tokens, padding not counted."""
    width = max(len(ids) for ids, _ in items)
    rows = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in items])
    solutions = [[_IGNORED] * prompt + ids[prompt:] + [_IGNORED] * (width - len(ids)) for ids, prompt in items]
    labels = torch.tensor(solutions)
    # Right padding and causal attention: no real token sees a padded one, so no mask is needed.
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
    loss = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
    )
    return loss, sum(len(ids) for ids, _ in items)


def _fraction_done(step: int, total: int, seconds: float, max_seconds: float | None) -> float:
    by_time = seconds / max_seconds if max_seconds else 0.0
    return max(step / total, by_time)
