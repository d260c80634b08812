"""A reward model in process: transformers sequence classification with one label, the raw logit is the score."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from common.errors import ModelError
from scorer.reward_models.known import Truncation, Usage
from scorer.reward_models.protocol import Sample, Scores, score_once
from scorer.reward_models.rendering import Ids, batches, cut, encode, free_pad_id, load_tokenizer, padded


class Classifier:
    """Scores completions without ever seeing the gold answer.

    path: folder in Hugging Face layout. name: what it is called on record. dtype: "float32" or "bfloat16".
    batch_tokens: padded tokens of one forward pass, over as many groups as it is given. max_length: tokens of one
    sample; the model's own limit holds as well. device: a torch device; None takes the GPU if there is one.

    Raises ModelError when the folder is no reward model: nothing is initialized silently.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        name: str = "",
        usage: Usage,
        dtype: str,
        batch_tokens: int,
        max_length: int,
        truncation: Truncation = "none",
        device: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self.path = Path(path)
        self.name = name or str(path)
        self.usage = usage
        self.batch_tokens = batch_tokens
        self.truncation = truncation
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = load_tokenizer(self.path, trust_remote_code=trust_remote_code)
        self.model = _load(self.path, dtype, trust_remote_code=trust_remote_code).to(self.device).eval()
        config = self.model.config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        self.max_length = min(max_length, positions or max_length)
        if usage.layout == "pair" and getattr(config, "type_vocab_size", 0) > 1:
            raise ModelError(
                f"{path} tells question and answer apart by token types, which are not passed on here: take a model "
                "of one token type, or one with a chat template"
            )
        encode(self.tokenizer, [("question", "answer")], usage)  # a template that refuses is found now

    def score(self, samples: Sequence[Sample]) -> Scores:
        """Raw logits: float64 [N]; nan where a sample exceeds `max_length`, inf where its logit is not finite."""
        encoded = encode(self.tokenizer, [(s.question, s.completion) for s in samples], self.usage)
        sequences = cut(encoded, self.max_length, self.truncation)

        def found(places: list[int]) -> Scores:
            scores = torch.empty(len(places), dtype=torch.float64)
            with torch.inference_mode():
                for batch in batches([len(sequences[place]) for place in places], self.batch_tokens):
                    scores[batch] = logits(self.model, [sequences[places[at]] for at in batch]).double().cpu()
            return scores.numpy()

        return score_once(self.name, samples, [len(ids) for ids in sequences], self.max_length, found)

    def close(self) -> None:
        """Nothing to let go of: the model goes with the process."""


def logits(model: Any, sequences: Sequence[Ids]) -> torch.Tensor:
    """The model's score at the last token of each sequence: float [B], with its gradient."""
    config = model.config.get_text_config()
    pad_id = free_pad_id(sequences, config.vocab_size)
    ids, mask = (torch.from_numpy(array).to(model.device) for array in padded(sequences, pad_id))
    kept, config.pad_token_id = config.pad_token_id, pad_id
    caches = {"use_cache": False} if hasattr(config, "use_cache") else {}  # encoders have none
    try:
        scores: torch.Tensor = model(input_ids=ids, attention_mask=mask, **caches).logits[:, 0].float()
    finally:
        config.pad_token_id = kept
    return scores


def check_labels(path: Path, config: Any) -> None:
    """Raises ModelError for a configuration that is no reward model's."""
    if config.num_labels != 1:
        raise ModelError(
            f"{path} is a {'/'.join(config.architectures or ['model'])} with {config.num_labels} labels, a reward "
            "model has one; `hero rm` trains one on a causal model"
        )


def _load(path: Path, dtype: str, *, trust_remote_code: bool) -> Any:
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        check_labels(path, config)
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
