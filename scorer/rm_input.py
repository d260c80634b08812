"""What a reward model reads: rendering, tokenizing and batching of (question, completion) pairs. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.errors import ModelError

Ids = Sequence[int]


def encode(tokenizer: Any, pairs: Sequence[tuple[str, str]], system_prompt: str) -> list[list[int]]:
    """Token ids of each pair as a finished chat: system prompt (if any), question, completion.

    The form that AceMath's reward models were trained on: no generation prompt behind the answer, and no
    special tokens beside those of the template. Raises ModelError when the template cannot render it.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"the reward model's tokenizer ({tokenizer.name_or_path}) has no chat template; "
            "add chat_template.jinja of the model it was made from"
        )
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    chats = [
        [*system, {"role": "user", "content": question}, {"role": "assistant", "content": completion}]
        for question, completion in pairs
    ]
    if not chats:
        return []
    try:
        texts = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=False)
    except Exception as error:  # jinja's and the template's own errors share no base
        raise ModelError(
            f"the chat template of {tokenizer.name_or_path} refuses this chat: {error}; "
            "a template without a system role needs an empty system prompt"
        ) from error
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


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
