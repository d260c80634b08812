"""Share of the computed tokens that are padding, on the lengths of GSM8K's questions and solutions.

They are third-party data and no part of the project: rows {"question", "solution"} in the file that GSM8K_TRAIN names,
or in shared/data beside the checkout. Their tokens are counted by characters, as SmolLM2's tokenizer needs them.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from learner.batch import Sequence, micro_batches
from learner.padding import attention_padding_share, padding_share

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "gsm8k_train.jsonl.gz"
TARGET = 0.05
CHARACTERS = {"question": 3.89, "solution": 2.31}
TEMPLATE = 30
"""Tokens that a chat template adds to a question."""
BATCHES = 20
SHAPES = ((32, 2048), (256, 2048), (256, 8192), (256, 32768), (4096, 8192))
"""Sequences of a step, tokens of a micro-batch."""


def run() -> dict[str, Any]:
    """`ratio` is the largest share over the shapes when sequences are packed, of all tokens or of attention's."""
    lengths = _lengths()
    generator = np.random.default_rng(0)
    detail = {}
    for count, budget in SHAPES:
        shares = []
        for _ in range(BATCHES):
            sequences = [_sequence(row, *lengths[row]) for row in generator.choice(len(lengths), count, replace=False)]
            packed, padded = (micro_batches(sequences, budget, packed=packed) for packed in (True, False))
            arrival = _in_order_of_arrival([sequence.width for sequence in sequences], budget)
            shares.append([padding_share(packed), attention_padding_share(packed), padding_share(padded), arrival])
        names = ("packed", "packed_attention", "like_lengths", "order_of_arrival")
        means = np.mean(shares, axis=0).tolist()
        detail[f"{count} sequences, {budget} tokens"] = {
            name: round(share, 4) for name, share in zip(names, means, strict=True)
        }
    worst = max(share for shares in detail.values() for name, share in shares.items() if name.startswith("packed"))
    return {"name": "padding", "ratio": worst, "target": TARGET, "holds": worst <= TARGET, "detail": detail}


def _lengths() -> list[tuple[int, int]]:
    """Tokens of each question and of its solution."""
    file = Path(os.environ.get("GSM8K_TRAIN", BESIDE))
    if not file.is_file():
        raise DataError(f"no file {file}; set GSM8K_TRAIN to a .jsonl.gz with rows that have a question and a solution")
    with gzip.open(file) as lines:
        rows = [json.loads(line) for line in lines]
    return [
        (
            TEMPLATE + int(len(row["question"]) / CHARACTERS["question"]),
            int(len(row["solution"]) / CHARACTERS["solution"]),
        )
        for row in rows
    ]


def _sequence(row: int, prompt: int, completion: int) -> Sequence:
    ids = np.full(prompt + completion + 1, row)  # no two prompts are equal
    return Sequence(ids[:prompt], ids[prompt:], np.zeros(completion + 1, dtype=np.float32), 0.0)


def _in_order_of_arrival(widths: SequenceOf[int], budget: int) -> float:
    """The share without sorting: rows as they come, as many as fit."""
    computed, rows, widest = 0, 0, 0
    for width in widths:
        if rows and (rows + 1) * max(widest, width) > budget:
            computed, rows, widest = computed + rows * widest, 0, 0
        rows, widest = rows + 1, max(widest, width)
    return 1.0 - sum(widths) / (computed + rows * widest)
