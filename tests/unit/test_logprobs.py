"""Log-probabilities and entropies against plain Python and float64 autograd; whole, and by chunks of rows."""

import copy
import math
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Qwen3Config

from learner.logprobs import _CHUNK_ELEMENTS, CompletionLogprobs, _LogSoftmax

TEMPERATURE = 0.7
VOCABULARY = 60


def slowly(logits: list[float], target: int) -> tuple[float, float]:
    """log p(target) and H = -sum_j p_j log p_j with p_j = exp(z_j / T) / sum_k exp(z_k / T)."""
    total = sum(math.exp(z / TEMPERATURE) for z in logits)
    probabilities = [math.exp(z / TEMPERATURE) / total for z in logits]
    return math.log(probabilities[target]), -sum(p * math.log(p) for p in probabilities)


def random_logits(rows: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(rows, VOCABULARY, generator=generator) * 3
    return logits.to(dtype), torch.randint(VOCABULARY, (rows,), generator=generator)


def test_values_are_those_of_plain_python() -> None:
    logits, targets = random_logits(9)
    logprobs, entropies = _LogSoftmax.apply(logits, targets, TEMPERATURE)
    for row, target, logprob, entropy in zip(
        logits.tolist(), targets.tolist(), logprobs.tolist(), entropies.tolist(), strict=True
    ):
        assert (logprob, entropy) == pytest.approx(slowly(row, target), abs=2e-6)


@pytest.mark.parametrize(("of_logprobs", "of_entropies"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("elements", [1 << 18, 150])  # all rows at once; two at a time
def test_gradients_are_those_of_float64(
    of_logprobs: float, of_entropies: float, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(_CHUNK_ELEMENTS, "cpu", elements)
    logits, targets = random_logits(9)
    weights = torch.randn(2, 9, generator=torch.Generator().manual_seed(4))

    exact = logits.double().requires_grad_()
    every = (exact / TEMPERATURE).log_softmax(-1)
    chosen, entropy = every.gather(-1, targets[:, None])[:, 0], -(every.exp() * every).sum(-1)
    (of_logprobs * weights[0] * chosen + of_entropies * weights[1] * entropy).sum().backward()

    ours = logits.clone().requires_grad_()
    found = _LogSoftmax.apply(ours * 1.0, targets, TEMPERATURE)
    terms = [
        scale * (part * row)
        for scale, part, row in zip((of_logprobs, of_entropies), found, weights, strict=True)
        if scale
    ]
    torch.stack(terms).sum().backward()
    torch.testing.assert_close(ours.grad, exact.grad.float(), atol=2e-6, rtol=0)


def test_a_sure_model_has_no_entropy_and_no_nan() -> None:
    logits = torch.full((2, VOCABULARY), -1e4)
    logits[:, 5] = 1e4
    given = logits.clone().requires_grad_()
    logprobs, entropies = _LogSoftmax.apply(given * 1.0, torch.tensor([5, 6]), TEMPERATURE)
    (logprobs.sum() + entropies.sum()).backward()
    assert logprobs.tolist() == [0.0, pytest.approx(-2e4 / TEMPERATURE)]
    assert entropies.tolist() == [0.0, 0.0]
    assert given.grad is not None and given.grad.isfinite().all()


SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64,
    "initializer_range": 0.1, "tie_word_embeddings": True,
}  # fmt: skip


def tiny(**changes: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(Qwen3Config(**(SHAPE | changes)))


def inputs(tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(VOCABULARY, (2, tokens + 1), generator=generator)
    positions = torch.arange(2 * tokens + 2)[2:]
    return ids, positions, torch.randint(VOCABULARY, (2 * tokens,), generator=generator)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 39])
def test_chunks_change_nothing(rows: int, checkpointing: bool) -> None:
    model = tiny()
    whole = CompletionLogprobs(model)
    chunked = CompletionLogprobs(copy.deepcopy(model), logits=rows * VOCABULARY)
    calls = []
    chunked.model.get_output_embeddings().register_forward_hook(lambda _m, given, _o: calls.append(len(given[0])))  # type: ignore[operator]
    if checkpointing:
        chunked.model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        chunked.model.train()
    gradients = []
    for module in (whole, chunked):
        logprobs, entropies = module(*inputs(20), TEMPERATURE)
        (logprobs * torch.linspace(-1, 1, 40) + 0.1 * entropies).sum().backward()
        gradients.append((logprobs, entropies, *(p.grad for p in module.parameters())))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert len(calls) >= 2 * (40 // rows) and max(calls) <= rows  # forward, and again backward
    assert all(p.grad.abs().sum() > 0 for p in chunked.parameters())


def test_chunks_need_no_gradient_to_be_used() -> None:
    model = tiny()
    with torch.no_grad():
        whole = CompletionLogprobs(model)(*inputs(20), TEMPERATURE)
        chunked = CompletionLogprobs(model, logits=7 * VOCABULARY)(*inputs(20), TEMPERATURE)
    for ours, theirs in zip(chunked, whole, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_logits_that_are_worked_on_afterwards_come_from_the_whole_model() -> None:
    torch.manual_seed(0)
    config = Gemma2Config(**SHAPE, final_logit_softcapping=0.5, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    module = CompletionLogprobs(model, logits=7 * VOCABULARY)
    assert not module.skips_prompt_logits
    ids, positions, targets = inputs(20)
    logprobs, entropies = module(ids, positions, targets, TEMPERATURE)
    every = (model(input_ids=ids).logits.flatten(0, 1)[positions] / TEMPERATURE).log_softmax(-1)
    torch.testing.assert_close(logprobs, every.gather(-1, targets[:, None])[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(entropies, -(every.exp() * every).sum(-1), atol=2e-6, rtol=0)


def test_no_completion_tokens_give_a_gradient_of_zero() -> None:
    model = tiny()
    none = torch.empty(0, dtype=torch.long)
    logprobs, entropies = CompletionLogprobs(model)(torch.zeros(1, 2, dtype=torch.long), none, none, TEMPERATURE)
    assert logprobs.shape == entropies.shape == (0,)
    (logprobs.sum() + entropies.sum()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
