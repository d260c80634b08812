"""A reward model in process: transformers sequence classification with one label, the raw logit is the score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from common.errors import ModelError
from scorer.rm_input import Ids, batches, encode, free_pad_id, padded


class RewardModel:
    """Scores completions without ever seeing the gold answer.

    path: folder in Hugging Face layout. dtype: "float32" or "bfloat16". batch_tokens: padded tokens of one
    forward pass. max_length: tokens of the rendered chat; the model's own limit holds as well.
    device: a torch device; None takes the GPU if there is one.

    Raises ModelError when the folder is no reward model: nothing is initialized silently.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        dtype: str,
        batch_tokens: int,
        max_length: int,
        system_prompt: str,
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.path = Path(path)
        self.batch_tokens = batch_tokens
        self.system_prompt = system_prompt
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(self.path, trust_remote_code=trust_remote_code)
        self.model = _load(self.path, dtype, trust_remote_code=trust_remote_code).to(self.device).eval()
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(max_length, positions or max_length)
        encode(self.tokenizer, [("question", "answer")], system_prompt)  # a template that refuses is found now

    def score(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float64]:
        """Raw logits of (question, completion) pairs: float64 [N]; nan where a pair exceeds `max_length`.

        Equal pairs are scored once: a rounding between two batches would otherwise be stretched to a whole
        band by HERO's min-max. Raises ModelError when the model gives a score that is not finite.
        """
        unique = list(dict.fromkeys(pairs))
        sequences = encode(self.tokenizer, unique, self.system_prompt)
        fits = [place for place, sequence in enumerate(sequences) if 0 < len(sequence) <= self.max_length]
        scores = np.full(len(unique), np.nan)
        with torch.inference_mode():
            for batch in batches([len(sequences[place]) for place in fits], self.batch_tokens):
                places = [fits[position] for position in batch]
                scores[places] = logits(self.model, [sequences[place] for place in places]).double().cpu().numpy()
        for place in fits:
            if not np.isfinite(scores[place]):
                raise ModelError(
                    f"{self.path} gives the score {scores[place]} to a completion of {len(sequences[place])} tokens, "
                    f"{unique[place][1][:80]!r}; check the model's weights, or use dtype float32"
                )
        where = {pair: place for place, pair in enumerate(unique)}
        return scores[[where[pair] for pair in pairs]]


def logits(model: Any, sequences: Sequence[Ids]) -> torch.Tensor:
    """The model's score at the last token of each sequence: float [B], with its gradient."""
    config = model.config.get_text_config()
    pad_id = free_pad_id(sequences, config.vocab_size)
    ids, mask = (torch.from_numpy(array).to(model.device) for array in padded(sequences, pad_id))
    kept, config.pad_token_id = config.pad_token_id, pad_id
    try:
        scores: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float()
    finally:
        config.pad_token_id = kept
    return scores


def load_tokenizer(path: Path, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder. Raises ModelError with the reason."""
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json: it is no model folder; `hero rm` makes a reward model")
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises a dozen unrelated kinds
        raise ModelError(f"{path} has no usable tokenizer ({error}); copy the files of the model's own") from error


def _load(path: Path, dtype: str, *, trust_remote_code: bool) -> Any:
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        if config.num_labels != 1:
            raise ModelError(
                f"{path} is a {'/'.join(config.architectures or ['model'])} with {config.num_labels} labels, a reward "
                "model has one; `hero rm` trains one on a causal model"
            )
        model, report = AutoModelForSequenceClassification.from_pretrained(
            path,
            config=config,
            dtype=getattr(torch, dtype),
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except ModelError:
        raise
    except Exception as error:  # as above
        reason = str(error).strip().splitlines()
        raise ModelError(
            f"{path} cannot be loaded as a reward model ({type(error).__name__}: {reason[0][:200] if reason else ''}); "
            "it must be a sequence classification model of transformers with one label"
        ) from error
    # transformers only warns, and fills what is missing with random numbers.
    if report["missing_keys"]:
        raise ModelError(
            f"{path} lacks the weights {sorted(report['missing_keys'])[:3]}: it is no trained reward model; "
            "`hero rm` trains one on a causal model"
        )
    return model
