"""A small policy of a standard architecture: a Qwen3 that reads and writes characters.

It is saved as an ordinary Hugging Face folder, so transformers, vLLM and DeepSpeed treat it like
any other. vLLM's attention on a CPU serves a head_dim of 32 or more, hence HEAD_DIM.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

HEAD_DIM = 32
ROPE_THETA = 100.0
"""Wavelengths up to about 500 tokens: with the usual 10,000 most of a head turns too slowly to tell the few dozen
positions of such prompts apart, and copying an operand is learnt later."""
PAD, END, SYSTEM, USER, ASSISTANT, UNKNOWN = (
    "<|pad|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|unknown|>",
)
SPECIAL = (PAD, END, SYSTEM, USER, ASSISTANT, UNKNOWN)
ALPHABET = "\n" + "".join(map(chr, range(32, 127))) + "\u00b0\u00d7\u00f7"  # degree, times, divided by
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def create(
    folder: Path,
    seed: int,
    *,
    hidden_size: int = 128,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate_size: int = 384,
    max_tokens: int = 512,
    phrases: Sequence[str] = (),
) -> None:
    """Write a freshly initialised policy and its tokenizer to `folder`; same seed, same weights.

    `phrases` are texts that become one token each (the fixed wording of the prompts, say), which
    saves most of a prompt's tokens; all other text is read character by character.
    """
    tokenizer = character_tokenizer(phrases, max_tokens=max_tokens)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=max_tokens,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def character_tokenizer(phrases: Sequence[str] = (), *, max_tokens: int = 512) -> PreTrainedTokenizerFast:
    """One token per character of ALPHABET and per phrase; pad, end and unknown are three tokens."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *ALPHABET))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=max_tokens,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
