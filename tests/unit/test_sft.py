"""The cold start learns, counts the loss on solutions only, and keeps to its budgets."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import DataError
from learner import sft, small_model
from learner.sft import SFTOptions

EXAMPLES = [(f"{a}+{b}=", f"\\boxed{{{a + b}}}") for a in range(4) for b in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("policy")
    small_model.create(made, seed=1, hidden_size=64, layers=1, heads=2, kv_heads=1)
    return made


def test_it_learns_a_small_set_by_heart(folder: Path, tmp_path: Path) -> None:
    options = SFTOptions(epochs=150, batch_tokens=256, lr=3e-3)
    summary = sft.train(folder, tmp_path, EXAMPLES, options, lambda *_: None)
    assert summary["loss"] < 0.1
    assert summary["epochs"] == 150
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    ids, prompt = sft.encode(tokenizer, *EXAMPLES[7], None)
    told = model(torch.tensor([ids])).logits[0, prompt - 1 : -1].argmax(-1)
    assert told.tolist() == ids[prompt:]


def test_the_same_seed_gives_the_same_model(folder: Path, tmp_path: Path) -> None:
    options = SFTOptions(epochs=2, batch_tokens=128, seed=5)
    for name in ("one", "two"):
        sft.train(folder, tmp_path / name, EXAMPLES, options, lambda *_: None)
    one, two = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_loss_is_the_mean_over_solution_tokens(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    items = [
        sft.encode(tokenizer, "1+1=", "2", None),
        sft.encode(tokenizer, "10+10=", "20 done", None),
    ]
    loss, tokens = sft._loss(model, items, tokenizer.pad_token_id)
    slow = []
    for ids, prompt in items:
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        slow += [-logprobs[at - 1, ids[at]].item() for at in range(prompt, len(ids))]
    assert loss.item() == pytest.approx(sum(slow) / len(slow), abs=1e-5)
    assert tokens == sum(len(ids) for ids, _ in items)


def test_seconds_end_the_training_and_the_rate_has_fallen(folder: Path, tmp_path: Path) -> None:
    options = SFTOptions(epochs=1_000_000, batch_tokens=256, max_seconds=0.5)
    seen: list[tuple[int, int, float]] = []
    summary = sft.train(folder, tmp_path, EXAMPLES, options, lambda *shown: seen.append(shown))
    assert summary["seconds"] < 10
    assert summary["steps"] == len(seen)
    assert seen[-1][1] < 1_000_000


def test_every_example_is_in_one_batch_within_the_budget() -> None:
    rng = random.Random(0)
    encoded = [([0] * rng.randint(1, 60), 0) for _ in range(500)] + [([0] * 900, 0)]
    made = sft.batches(encoded, 400, rng)
    assert sorted(index for batch in made for index in batch) == list(range(501))
    for batch in made:
        longest = max(len(encoded[index][0]) for index in batch)
        assert longest * len(batch) <= 400 or len(batch) == 1
    padded = sum(max(len(encoded[i][0]) for i in batch) * len(batch) for batch in made)
    assert padded < 1.15 * sum(len(ids) for ids, _ in encoded)


def test_long_examples_are_counted_and_all_long_is_refused(folder: Path, tmp_path: Path) -> None:
    examples = [*EXAMPLES, ("9" * 90, "9")]
    summary = sft.train(folder, tmp_path, examples, SFTOptions(epochs=1, max_tokens=60), lambda *_: None)
    assert (summary["examples"], summary["too_long"]) == (16, 1)
    with pytest.raises(DataError, match="none of 17 worked solutions fits 3 tokens"):
        sft.train(folder, tmp_path, examples, SFTOptions(epochs=1, max_tokens=3), lambda *_: None)
