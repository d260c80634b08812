"""The likelihood of the gold answer, against the formula by hand."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.errors import ModelError
from scorer.reward_models.likelihood import Likelihood, reasoning
from scorer.reward_models.protocol import Sample
from tests import tiny_models

SAMPLES = [
    Sample("12+30=?", "12+30 is \\boxed{41}", "42"),
    Sample("12+30=?", "no idea", "42"),
    Sample("?", "", "1"),
    Sample("1/3=?", "a third, \\boxed{\\frac{1}{3}} it is", "\\frac{1}{3}"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.policy(tmp_path_factory.mktemp("policy"))


def load(folder, **changes) -> Likelihood:
    values = dict(system_prompt="", dtype="float32", batch_tokens=4096, max_length=128, device="cpu")
    return Likelihood(folder, **values | changes)


def test_it_is_the_mean_probability_of_the_gold_answers_tokens(folder):
    # Given the probabilities of one sequence at a time; a token of this model is a character
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = ["12+30 is \\boxed{", "no idea\n\\boxed{", "\n\\boxed{", "a third, \\boxed{"]
    expected = []
    for sample, text in zip(SAMPLES, texts, strict=True):
        before = tokenizer(f"<|user|>{sample.question}<|assistant|>{text}", add_special_tokens=False)["input_ids"]
        gold = tokenizer(sample.gold, add_special_tokens=False)["input_ids"]
        probabilities = []
        for token in gold:
            with torch.no_grad():
                probabilities.append(model(torch.tensor([before])).logits[0, -1].softmax(-1)[token].item())
            before = [*before, token]
        expected.append(sum(probabilities) / len(gold))
    got = load(folder).score(SAMPLES)
    assert got == pytest.approx(expected, rel=1e-4)
    assert load(folder, batch_tokens=1).score(SAMPLES) == pytest.approx(expected, rel=1e-4)


def test_the_reasoning_counts_and_the_own_answer_does_not(folder):
    same = [Sample("?", f"so \\boxed{{{own}}}", "7") for own in ("7", "8", "")]
    other = Sample("?", "thus \\boxed{7}", "7")
    *first, last = load(folder).score([*same, other])
    assert len(set(first)) == 1
    assert last != first[0]


def test_what_is_too_long_is_reported(folder):
    assert np.isnan(load(folder).score([SAMPLES[0], Sample("?", "x" * 200, "1")])).tolist() == [False, True]


def test_a_gold_answer_is_needed(folder):
    with pytest.raises(ModelError, match="no gold answer to"):
        load(folder).score([Sample("why?", "because")])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(tmp_path)
    folder = tiny_models.policy(tmp_path / "torn")
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="causal model"):
        load(folder)


def test_the_last_box_is_the_answer():
    assert reasoning("\\boxed{1}, no, \\boxed{2} is it") == "\\boxed{1}, no, \\boxed{"
    assert reasoning("The answer is 2.\n") == "The answer is 2.\n\\boxed{"
