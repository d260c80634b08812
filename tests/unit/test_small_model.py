"""The small policy is an ordinary Hugging Face folder with a lossless character tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from learner import small_model

PHRASES = ("\\boxed{", "What is ")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("policy")
    small_model.create(made, seed=1, phrases=PHRASES)
    return made


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(folder)


def test_it_is_a_qwen3_of_the_size_that_vllm_serves(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.architectures == ["Qwen3ForCausalLM"]
    assert model.config.head_dim == 32
    assert 3e5 < sum(parameter.numel() for parameter in model.parameters()) < 2e6


def test_the_same_seed_gives_the_same_weights(folder: Path, tmp_path: Path) -> None:
    small_model.create(tmp_path / "again", seed=1, phrases=PHRASES)
    small_model.create(tmp_path / "other", seed=2, phrases=PHRASES)
    first, again, other = (
        AutoModelForCausalLM.from_pretrained(path).lm_head.weight
        for path in (folder, tmp_path / "again", tmp_path / "other")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("text", ["12 + 30 = 42\n", "What is 7*6? \\boxed{42}", "  two  spaces, 75.0° ", ""])
def test_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text


def test_a_phrase_is_one_token_and_a_character_is_one_token(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert len(tokenizer.encode("What is 7")) == 2
    assert len(tokenizer.encode("what is 7")) == len("what is 7")


def test_the_special_tokens_differ(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}
    assert len(ids) == 3
    assert tokenizer.encode("語") == [tokenizer.unk_token_id]


def test_the_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
    ]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == "<|system|>s<|user|>q<|assistant|>"
    assert len(tokenizer.encode(prompt)) == 5
    messages.append({"role": "assistant", "content": "a"})
    assert tokenizer.apply_chat_template(messages, tokenize=False).endswith("<|assistant|>a<|end|>")
