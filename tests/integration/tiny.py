"""A causal model and a reward model of a few thousand parameters, with a character tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<eos>", "<user>", "<assistant>", "<system>", "<unk>"]
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<eos>"
CHARACTERS = "abcdefghijklmnopqrstuvwxyz 0123456789+-*/=?.\\{}"


def tokenizer(pad: str = "<pad>", template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *CHARACTERS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    core.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>", pad_token=pad)
    made.add_special_tokens({"additional_special_tokens": SPECIAL[2:5]})
    made.chat_template = template
    return made


def config(**changes) -> LlamaConfig:
    values = dict(
        vocab_size=len(SPECIAL) + len(CHARACTERS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaConfig(**values | changes)


def causal_model(folder: Path) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(config()).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def reward_model(folder: Path, *, pad: str = "<pad>", template: str | None = TEMPLATE, num_labels: int = 1) -> Path:
    torch.manual_seed(0)
    made = tokenizer(pad, template)
    model = LlamaForSequenceClassification(config(num_labels=num_labels, pad_token_id=made.pad_token_id))
    model.score.weight.data.normal_()  # scores of about 1, not of 0.02
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder
