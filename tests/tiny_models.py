"""A policy and reward models of some 80,000 parameters: the product's own small model, narrower; and an encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForSequenceClassification, DebertaV2Config

from learner import small_model


def policy(folder: Path, *, max_tokens: int = 128, seed: int = 0, intermediate_size: int = 128) -> Path:
    """A random causal model with its character tokenizer."""
    shape = {"hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": intermediate_size}
    small_model.create(folder, seed, **shape, max_tokens=max_tokens)
    return folder


def reward_model(
    folder: Path,
    *,
    max_tokens: int = 128,
    pad: str = small_model.PAD,
    template: str | None = small_model.CHAT_TEMPLATE,
    num_labels: int = 1,
) -> Path:
    """A random classifier of the same shape; `pad` is the pad token, `template` the chat template."""
    policy(folder, max_tokens=max_tokens)
    tokenizer = small_model.character_tokenizer(max_tokens=max_tokens)
    tokenizer.pad_token, tokenizer.chat_template = pad, template
    config = AutoConfig.from_pretrained(folder, num_labels=num_labels, pad_token_id=tokenizer.pad_token_id)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config)
    model.score.weight.data.normal_(std=0.2)  # scores of about 1, not of 0.02
    model.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()  # save_pretrained writes one, but removes none
    tokenizer.save_pretrained(folder)
    return folder


def pair_model(folder: Path, *, type_vocab_size: int = 0) -> Path:
    """A random DeBERTa with one label whose tokenizer frames a text pair; no chat template."""
    tokenizer = small_model.character_tokenizer()
    tokenizer.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]"})
    framed = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=framed
    )
    tokenizer.chat_template = None
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, type_vocab_size=type_vocab_size, num_labels=1, initializer_range=0.3,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
