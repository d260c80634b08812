"""The likelihood of the gold answer as the score: how sure a frozen causal LM is of it after some reasoning.

Needs no trained reward model, and is dense where a verifier says 0 or 1: after RLPR (arXiv:2506.18254).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from common.errors import ModelError
from scorer.reward_models.protocol import Sample, Scores, score_once
from scorer.reward_models.rendering import batches, chats, inert, load_tokenizer, padded

OPENING, CLOSING = "\\boxed{", "}"


class Likelihood:
    """The mean probability of the gold answer's tokens, in [0, 1], in place of the completion's own answer.

    path: a causal LM in Hugging Face layout; the policy before training is one. The other arguments as in `Classifier`.
    Raises ModelError when the folder is no causal model with a chat template.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        name: str = "",
        system_prompt: str,
        dtype: str,
        batch_tokens: int,
        max_length: int,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.name = name or str(path)
        self.system_prompt = system_prompt
        self.batch_tokens = batch_tokens
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(Path(path), trust_remote_code=trust_remote_code)
        try:
            model: Any = AutoModelForCausalLM.from_pretrained(
                path, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
            )
        except Exception as error:  # transformers raises a dozen unrelated kinds
            raise ModelError(
                f"{path} cannot be loaded as a causal model ({error}); the likelihood needs one"
            ) from error
        self.model = model.to(self.device).eval()
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(max_length, positions or max_length)
        self._encode([Sample("question", "answer", "1")])

    def score(self, samples: Sequence[Sample]) -> Scores:
        """float64 [N], in [0, 1]; nan where question, reasoning and answer exceed `max_length`.

        Raises ModelError for a sample without a gold answer.
        """
        encoded = self._encode(samples)

        def found(places: list[int]) -> Scores:
            scores = np.empty(len(places))
            with torch.inference_mode():
                for batch in batches([len(encoded[place][0]) for place in places], self.batch_tokens):
                    scores[batch] = self._probabilities([encoded[places[at]] for at in batch])
            return scores

        return score_once(self.name, samples, [len(ids) for ids, _ in encoded], self.max_length, found)

    def close(self) -> None:
        """Nothing to let go of: the model goes with the process."""

    def _encode(self, samples: Sequence[Sample]) -> list[tuple[list[int], list[int]]]:
        """(token ids, places of the gold answer's tokens among them) of each sample."""
        if missing := [sample.question for sample in samples if not sample.gold]:
            raise ModelError(f"no gold answer to {missing[0][:80]!r}: its likelihood is the score of this backend")
        prompts = chats(self.tokenizer, inert(self.tokenizer, [s.question for s in samples]), None, self.system_prompt)
        before = inert(self.tokenizer, [reasoning(s.completion) for s in samples])
        starts = [prompt + reasons for prompt, reasons in zip(prompts, before, strict=True)]
        texts = [start + sample.gold + CLOSING for start, sample in zip(starts, samples, strict=True)]
        made = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        encoded = []
        for start, sample, ids, offsets in zip(starts, samples, made["input_ids"], made["offset_mapping"], strict=True):
            end = len(start) + len(sample.gold)
            # A token may reach over either border of the answer: it counts, since the answer cannot be without it.
            places = [at for at, (low, high) in enumerate(offsets) if high > len(start) and low < end and high > low]
            encoded.append((ids, places))
        return encoded

    def _probabilities(self, chosen: Sequence[tuple[list[int], list[int]]]) -> Scores:
        """Mean probability of the places' tokens, for each sequence: float64 [B]."""
        ids, _ = padded([ids for ids, _ in chosen], 0)
        rows = torch.from_numpy(ids).to(self.device)
        # Padding stands to the right of everything under a causal mask: no real token sees it, so no mask is passed.
        hidden = self.model(input_ids=rows, use_cache=False).logits
        scores = np.empty(len(chosen))
        for row, (_, places) in enumerate(chosen):
            at = torch.tensor(places, device=self.device)
            probable = hidden[row, at - 1].float().softmax(-1).gather(1, rows[row, at, None])
            scores[row] = probable.mean().item()
        return scores


def reasoning(completion: str) -> str:
    """The completion up to its final answer, and the beginning of a box: the text in whose place the gold one goes."""
    box = completion.rfind(OPENING)
    if box >= 0:
        return completion[: box + len(OPENING)]
    return f"{completion.rstrip()}\n{OPENING}"
