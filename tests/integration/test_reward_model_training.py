"""Training of a reward model on a tiny backbone, and what is measured about it."""

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.auroc import auroc, auroc_within
from common.errors import DataError, ModelError
from scorer.reward_models.classifier import Classifier
from scorer.reward_models.known import Usage
from scorer.reward_models.labelled import LabelledGroup
from scorer.reward_models.protocol import Sample
from scorer.reward_models.train import Progress, RMOptions, train
from tests import tiny_models


def examples(count=60):
    """A completion is correct when it says yes."""
    rng = random.Random(0)
    groups = []
    for number in range(count):
        labels = [rng.random() < 0.4 for _ in range(4)]
        groups.append(LabelledGroup(f"{number}?", ["yes" if label else "no" for label in labels], labels))
    return groups


OPTIONS = RMOptions(epochs=4, lr=3e-3, batch_tokens=512, holdout_fraction=0.2)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return tiny_models.policy(tmp_path_factory.mktemp("backbone"))


@pytest.mark.parametrize("loss", ["logistic", "bradley_terry"])
def test_it_learns_and_the_folder_loads_as_a_reward_model(backbone, tmp_path, loss):
    seen: list[Progress] = []
    options = RMOptions(**{**OPTIONS.__dict__, "loss": loss, "usage": Usage("chat", "be right")})
    got = train(backbone, tmp_path / "rm", examples(), options, seen.append, {"elsewhere": examples(20)})
    for quality in got.quality.values():
        assert quality.auroc > 0.95
        assert quality.auroc_within > 0.95
        assert quality.calibration_error < 0.2
    assert (got.prompts, got.quality["held out"].prompts, got.quality["elsewhere"].prompts) == (48, 12, 20)
    assert (got.pairs, got.quality["held out"].completions, got.too_long) == (192, 48, 0)
    training = [p.fraction for p in seen if p.phase == "training"]
    assert got.steps == len(training) > 0
    assert training == sorted(training)
    assert {p.phase for p in seen} == {"training", "measuring: held out", "measuring: elsewhere"}
    usage = Usage("chat", "be right")
    model = Classifier(tmp_path / "rm", usage=usage, dtype="float32", batch_tokens=512, max_length=99, device="cpu")
    yes, no = model.score([Sample("new?", "yes"), Sample("new?", "no")])
    assert yes > no


def test_the_same_seed_gives_the_same_model(backbone, tmp_path):
    results = [train(backbone, tmp_path / name, examples(20), OPTIONS) for name in "ab"]
    assert results[0].loss == results[1].loss
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_time_ends_the_training(backbone, tmp_path, monkeypatch):
    # Given a clock that goes on by a tenth of a second whenever it is asked, which training does once a step
    clock = itertools.count(step=0.1)
    monkeypatch.setattr("scorer.reward_models.train.time", SimpleNamespace(monotonic=lambda: next(clock)))
    options = RMOptions(**{**OPTIONS.__dict__, "epochs": 100, "max_seconds": 2.0})
    got = train(backbone, tmp_path / "rm", examples(8), options)
    assert 18 <= got.steps <= 20


def test_an_older_model_is_replaced_but_nothing_else(backbone, tmp_path):
    options = RMOptions(**{**OPTIONS.__dict__, "epochs": 1})
    train(backbone, tmp_path / "rm", examples(8), options)
    train(backbone, tmp_path / "rm", examples(8), options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years")
    with pytest.raises(ModelError, match="no model folder"):
        train(backbone, tmp_path / "mine", examples(8), options)


def test_what_cannot_be_trained_on_is_refused(backbone, tmp_path):
    one_label = [LabelledGroup(f"{n}?", ["yes"], [True]) for n in range(8)]
    with pytest.raises(DataError, match="same label"):
        train(backbone, tmp_path / "rm", one_label, OPTIONS)
    with pytest.raises(DataError, match="0 labelled"):
        train(backbone, tmp_path / "rm", [], OPTIONS)
    unmixed = [*one_label, *(LabelledGroup(f"{n}!", ["no"], [False]) for n in range(8))]
    with pytest.raises(DataError, match="bradley_terry"):
        train(backbone, tmp_path / "rm", unmixed, RMOptions(loss="bradley_terry"))
    with pytest.raises(ModelError, match=r"no config\.json"):
        train(tmp_path / "absent", tmp_path / "rm", examples(8), OPTIONS)
    assert not (tmp_path / "rm").exists()


def slow_auroc(labels, scores):
    """Every pair of a correct and a wrong one; a tie is half won."""
    won = [
        1.0 if right > wrong else 0.5 if right == wrong else 0.0
        for (right, is_right), (wrong, is_wrong) in itertools.product(zip(scores, labels, strict=True), repeat=2)
        if is_right and not is_wrong
    ]
    return sum(won) / len(won) if won else math.nan


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(0, 2)), min_size=1, max_size=30))
def test_auroc_equals_counting_pairs(rows):
    labels, scores, prompts = (np.array(column) for column in zip(*rows, strict=True))
    assert auroc(labels, scores.astype(float)) == pytest.approx(slow_auroc(labels, scores), nan_ok=True)
    each = [slow_auroc(labels[prompts == p], scores[prompts == p]) for p in sorted(set(prompts.tolist()))]
    mixed = [value for value in each if not math.isnan(value)]
    expected = sum(mixed) / len(mixed) if mixed else math.nan
    assert auroc_within(labels, scores.astype(float), prompts) == pytest.approx(expected, nan_ok=True)
