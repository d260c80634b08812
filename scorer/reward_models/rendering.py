"""What a reward model reads: rendering, tokenizing and batching of questions and completions. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import ModelError
from scorer.reward_models.known import Truncation, Usage

Ids = Sequence[int]


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder. Raises ModelError with the reason."""
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json: it is no model folder; `hero rm` makes a reward model")
    from transformers import AutoTokenizer  # seconds

    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises a dozen unrelated kinds
        raise ModelError(f"{path} has no usable tokenizer ({error}); copy the files of the model's own") from error


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]], usage: Usage) -> list[list[int]]:
    """Token ids of each (question, completion) as `usage` has them.

    chat: a finished chat of system prompt (if any), question, completion; no generation prompt behind the answer, and
    no special tokens beside those of the template. What a completion writes like one of them is text: it can neither
    end its turn nor begin another. Raises ModelError when the template cannot render it.
    """
    if not pairs:
        return []
    questions, completions = inert(tokenizer, [q for q, _ in pairs]), inert(tokenizer, [c for _, c in pairs])
    if usage.layout == "pair":
        paired: list[list[int]] = tokenizer(questions, completions)["input_ids"]
        return paired
    rendered = chats(tokenizer, questions, completions, usage.system_prompt)
    ids: list[list[int]] = tokenizer(rendered, add_special_tokens=False)["input_ids"]
    return ids


def chats(tokenizer: Any, questions: Sequence[str], completions: Sequence[str] | None, system_prompt: str) -> list[str]:
    """Each question and completion in the model's chat template; without completions, up to where they would begin."""
    if not tokenizer.chat_template:
        raise ModelError(
            f"the reward model's tokenizer ({tokenizer.name_or_path}) has no chat template; "
            "add chat_template.jinja of the model it was made from"
        )
    begun = [{"role": "system", "content": system_prompt}] if system_prompt else []
    messages = [[*begun, {"role": "user", "content": question}] for question in questions]
    for message, completion in zip(messages, completions or [], strict=completions is not None):
        message.append({"role": "assistant", "content": completion})
    try:
        texts: list[str] = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=completions is None
        )
    except Exception as error:  # jinja's and the template's own errors share no base
        raise ModelError(
            f"the chat template of {tokenizer.name_or_path} refuses this chat: {error}; "
            "a template without a system role needs an empty system prompt"
        ) from error
    return texts


def inert(tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """`texts` with a space inside whatever the tokenizer would take for one of its special tokens."""
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    written = [re.escape(token) for token in sorted(special, key=len, reverse=True) if len(token) > 1]
    if not written:
        return list(texts)
    pattern = re.compile("|".join(written))
    return [pattern.sub(lambda found: f"{found.group()[0]} {found.group()[1:]}", text) for text in texts]


def cut(sequences: Sequence[list[int]], max_length: int, truncation: Truncation) -> list[list[int]]:
    """left: the last `max_length` tokens of what is longer. none: as they are, for others to report."""
    return [ids[-max_length:] if truncation == "left" else ids for ids in sequences]


def batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Positions in batches of equal-length neighbours, longest first, each at most `batch_tokens` padded tokens.

    A sequence that is longer than the budget goes alone.
    """
    ordered = sorted(range(len(lengths)), key=lambda position: -lengths[position])
    packed: list[list[int]] = []
    for position in ordered:
        if packed and lengths[packed[-1][0]] * (len(packed[-1]) + 1) <= batch_tokens:
            packed[-1].append(position)
        else:
            packed.append([position])
    return packed


def free_pad_id(sequences: Iterable[Ids], vocab_size: int) -> int:
    """A pad id that no sequence ends with.

    transformers takes the score at the last token whose *id* is not the pad id, whatever the mask says. With
    pad == eos, or a text that ends in the pad token, it is taken too early. Padded on the right with an id
    that ends no sequence of the batch, the last token is the one. Raises ValueError when every id ends one.
    """
    last = {sequence[-1] for sequence in sequences}
    for candidate in range(vocab_size):
        if candidate not in last:
            return candidate
    raise ValueError(f"all {vocab_size} token ids end a sequence of this batch; make batches smaller")


def padded(sequences: Sequence[Ids], pad_id: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(input ids, attention mask), both int64 [B, T], padded on the right."""
    longest = max(map(len, sequences))
    ids = np.full((len(sequences), longest), pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask
