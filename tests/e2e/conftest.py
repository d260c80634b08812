"""Models small enough to make, load and sample within seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

EOS, PAD, END_OF_TURN = "<eos>", "<pad>", "<end>"


def save_tiny_model(folder: Path, *, seed: int, head_dim: int = 32) -> Path:
    """Random Qwen3: 2 layers, hidden 64, tied embeddings, byte-level tokenizer, 264 embeddings (some unused)."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([PAD, EOS, END_OF_TURN, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, additional_special_tokens=[END_OF_TURN]
    ).save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=264,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=head_dim,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        initializer_range=0.15,  # the usual 0.02 samples almost evenly: wrong weights would hardly show
        eos_token_id=vocab[EOS],
        pad_token_id=vocab[PAD],
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(config).float()
    # A second end token and sampling settings that must not leak into training samples.
    model.generation_config = GenerationConfig(
        eos_token_id=[vocab[EOS], vocab[END_OF_TURN]], pad_token_id=vocab[PAD], do_sample=True, top_k=3, temperature=0.5
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random tied-embedding model with its tokenizer."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "model", seed=0)


@pytest.fixture(scope="session")
def other_tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights: the next policy version."""
    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "next", seed=1)
