"""Packed sequences against each sequence by itself, on tiny random models of several families."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    NemotronConfig,
    OPTConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    StableLmConfig,
)
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from learner.attention import NAME, Segments
from learner.batch import MicroBatch, Sequence, micro_batches
from learner.logprobs import CompletionLogprobs
from learner.rows import Row

VOCABULARY = 97
TEMPERATURE = 0.8
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128,
    "initializer_range": 0.1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LATENT = {"q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12}
PACKED = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE),
    "mistral": MistralConfig(**SHAPE, sliding_window=None),
    "granite": GraniteConfig(**SHAPE, logits_scaling=3.0),
    "qwen3_moe": Qwen3MoeConfig(**SHAPE, **EXPERTS),
    "deepseek_v3": DeepseekV3Config(
        **{**SHAPE, **LATENT, "head_dim": 8, "num_key_value_heads": 4}, first_k_dense_replace=2
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=2, n_positions=128, initializer_range=0.1,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    ),
    "opt": OPTConfig(**SHAPE, ffn_dim=64, word_embed_proj_dim=64, dropout=0.0),
}  # fmt: skip
PADDED = {
    "mistral": (MistralConfig(**SHAPE, sliding_window=12), "sliding_window"),
    "gemma2": (Gemma2Config(**SHAPE, sliding_window=12), "sliding_attention"),
    "gemma2_without_windows": (Gemma2Config(**SHAPE, layer_types=["full_attention"] * 2), "softcap"),
    "gpt_oss": (GptOssConfig(**SHAPE, layer_types=["full_attention"] * 2, num_local_experts=4), "s_aux"),
    "mamba": (MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=1), "linear_attention"),
    "stablelm": (StableLmConfig(**SHAPE), "no attention but its own"),
    "nemotron": (NemotronConfig(**SHAPE), "differ from those of single sequences"),
}


def model(config: PretrainedConfig) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


BUDGET = 100
COMPLETIONS = {17: [30, 1, 12, 7, 25, 3, 28], 1: [1, 1, 9, 20], 29: [28, 2], 6: [5], 23: [11], 4: [1], 12: [18]}
"""By prompt tokens. The first are more than a budget, so they are split; one-token completions add no token."""


def sequences() -> list[Sequence]:
    """Shuffled, so that equal prompts are in different places."""
    rng = np.random.default_rng(1)
    result = []
    for tokens, completions in COMPLETIONS.items():
        prompt = rng.integers(3, VOCABULARY, tokens)
        for length in completions:
            completion = rng.integers(3, VOCABULARY, length)
            result.append(Sequence(prompt.copy(), completion, rng.normal(size=length), float(rng.normal())))
    return [result[place] for place in rng.permutation(len(result))]


def run(module: CompletionLogprobs, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    ids, positions, targets = (torch.from_numpy(x) for x in (batch.input_ids, batch.positions, batch.targets))
    segments = None if batch.row is None else Segments.of(batch.row, ids.device)
    result: tuple[torch.Tensor, torch.Tensor] = module(ids, positions, targets, TEMPERATURE, segments)
    return result


def loss(logprobs: torch.Tensor, entropy: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    return (advantages * logprobs + 0.1 * entropy).sum()


def alone(plain: Any, batch: list[Sequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """One sequence at a time under the untouched model: log-probabilities and entropies, and gradients in it."""
    found = []
    for sequence in batch:
        ids = torch.from_numpy(np.concatenate([sequence.prompt_ids, sequence.completion_ids]))
        logits = plain(input_ids=ids[None]).logits[0, len(sequence.prompt_ids) - 1 : -1]
        every = (logits / TEMPERATURE).log_softmax(-1)
        logprobs = every.gather(-1, ids[len(sequence.prompt_ids) :, None])[:, 0]
        found.append((logprobs, -(every.exp() * every).sum(-1)))
        loss(*found[-1], torch.full((len(logprobs),), sequence.advantage)).backward()
    return tuple(torch.cat(part).detach() for part in zip(*found, strict=True))  # type: ignore[return-value]


def gradients(module: Any) -> torch.Tensor:
    """Of all parameters, which are the same ones in the same order in a model and its copy."""
    return torch.cat([parameter.grad.flatten() for parameter in module.parameters()])


def assert_the_same(module: CompletionLogprobs, plain: Any, packed: bool) -> None:
    given = sequences()
    batches = micro_batches(given, BUDGET, packed=packed)
    assert len(batches) > 2 and any(len(batch.indices) > 2 for batch in batches)
    split = [any(len(given[i].prompt_ids) == 17 for i in batch.indices) for batch in batches]
    assert sum(split) > 1 and any(batch.sequence_tokens > batch.real_tokens for batch in batches) == packed
    for batch in batches:
        logprobs, entropy = run(module, batch)
        loss(logprobs, entropy, torch.from_numpy(batch.advantages)).backward()
        expected = alone(plain, [given[index] for index in batch.indices])
        for ours, theirs in zip((logprobs, entropy), expected, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    ours, theirs = gradients(module.model), gradients(plain)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", PACKED)
def test_packed_equals_alone(family: str, checkpointing: bool) -> None:
    plain = model(PACKED[family])
    module = CompletionLogprobs(copy.deepcopy(plain))
    assert module.packs
    if checkpointing:
        module.model.train()  # type: ignore[no-untyped-call]
        module.model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
    assert_the_same(module, plain, packed=True)


@pytest.mark.parametrize("family", PADDED)
def test_a_model_that_cannot_be_packed_is_padded_and_the_log_says_why(family: str) -> None:
    config, reason = PADDED[family]
    plain = model(config)
    before = plain.config._attn_implementation
    with capture_logs() as logs:
        module = CompletionLogprobs(copy.deepcopy(plain))
    assert not module.packs
    assert reason in logs[-1]["reason"]
    assert module.model.config._attn_implementation == before
    assert_the_same(module, plain, packed=False)


def test_a_model_that_cannot_share_a_prompt_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts positions from each 0 on, which is right for sequences that lie end to end with all their tokens."""
    rotary = LlamaRotaryEmbedding.forward

    def counted(self: Any, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        places = torch.arange(position_ids.shape[1])[None]
        return rotary(self, x, places - torch.where(position_ids == 0, places, 0).cummax(1).values)

    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", counted)
    assert not CompletionLogprobs(model(LlamaConfig(**SHAPE))).packs
    monkeypatch.setattr("learner.packing._ROW", Row(np.array([9, 7, 4]), np.array([0, 0, 0])))
    assert CompletionLogprobs(model(LlamaConfig(**SHAPE))).packs


def test_packing_can_be_turned_off() -> None:
    module = CompletionLogprobs(model(PACKED["llama"]), packing="off")
    assert not module.packs
    assert module.model.config._attn_implementation == "sdpa"


def test_one_sequence_in_a_row_and_equal_lengths_need_no_copies() -> None:
    """They take a way of their own through the attention, so they are tried too."""
    plain = model(PACKED["qwen3"])
    module = CompletionLogprobs(copy.deepcopy(plain))
    rng = np.random.default_rng(2)
    for count in (1, 4):
        ids = rng.integers(3, VOCABULARY, (count, 20))
        equal = [Sequence(row[:8], row[8:], np.zeros(12), 1.0) for row in ids]
        (batch,) = micro_batches(equal, 1000, packed=True)
        logprobs, _ = run(module, batch)
        expected, _ = alone(plain, equal)
        torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=0)


def test_bfloat16_packs_as_well() -> None:
    module = CompletionLogprobs(model(PACKED["qwen3"]).to(torch.bfloat16))
    assert module.packs
    (batch,) = micro_batches(sequences(), 1000, packed=True)
    logprobs, _ = run(module, batch)
    expected, _ = run(CompletionLogprobs(model(PACKED["qwen3"])), batch)
    assert float((logprobs - expected).detach().abs().max()) < 0.3  # 2.8 if sequences saw each other


def test_what_the_attention_does_not_compute_is_refused() -> None:
    packed = CompletionLogprobs(model(PACKED["llama"])).model
    assert packed.config._attn_implementation == NAME
    segments = Segments.of(Row(np.array([3, 2]), np.array([0, 0])), torch.device("cpu"))
    row = {"input_ids": torch.arange(5)[None], "position_ids": segments.position_ids, "segments": segments}
    with pytest.raises(ValueError, match="softcap"):
        packed(**row, softcap=30.0)
    with pytest.raises(ValueError, match="a mask"):
        packed.model.layers[0](
            torch.randn(1, 5, 64), attention_mask=torch.zeros(1, 1, 5, 5), segments=segments,
            position_embeddings=packed.model.rotary_emb(torch.randn(1, 5, 64), segments.position_ids),
        )  # fmt: skip
