"""HERO inside a real trl.GRPOTrainer, and what it refuses there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError, DataError
from common.settings import Sections
from learner.advantage import advantages
from scorer.trl import HeroReward
from tests import tiny_models

SIZE = 4
RIGHT, WRONG = r"so \boxed{42}", r"so \boxed{41}"


def arguments(**changed: object) -> Any:
    given = {"num_generations": SIZE, "scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize"}
    return SimpleNamespace(**given | changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def settings(folder: Path) -> Sections:
    model = str(tiny_models.reward_model(folder / "rm"))
    return Sections.model_validate({"reward_model": {"model": model}, "reward": {"mode": "hero"}})


@pytest.fixture
def hero(settings: Sections) -> Iterator[HeroReward]:
    with HeroReward(arguments(), settings) as reward:
        yield reward


@pytest.fixture
def own_environment() -> Iterator[None]:
    """A trainer leaves a launcher's variables behind, with which a learner would look for other ranks."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.mark.usefixtures("own_environment")
def test_a_trainer_trains_on_the_rewards_and_keeps_the_weight(
    settings: Sections, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    policy = tiny_models.policy(folder / "policy")
    rows = Dataset.from_list([{"prompt": f"{n} + {n} = ?", "answer": str(2 * n)} for n in range(1, 5)])
    args = GRPOConfig(
        output_dir=str(tmp_path / "trl"), use_cpu=True, bf16=False, num_generations=SIZE, scale_rewards="none",
        per_device_train_batch_size=2 * SIZE, max_completion_length=8, max_steps=2, logging_steps=1, report_to=[],
        save_strategy="no",
    )  # fmt: skip
    with HeroReward(args, settings) as reward:
        paid: list[list[float]] = []
        seen = reward.__call__
        monkeypatch.setattr(HeroReward, "__call__", lambda self, *a, **k: paid.append(seen(*a, **k)) or paid[-1])
        trainer = GRPOTrainer(str(policy), reward_funcs=reward, args=args, train_dataset=rows)
        made: list[Any] = []
        inputs = trainer._generate_and_score_completions
        monkeypatch.setattr(
            trainer, "_generate_and_score_completions", lambda batch: made.append(inputs(batch)) or made[-1]
        )
        trainer.train()
        assert len(paid) == 2 and reward.sigma is not None
    for rewards, batch in zip(paid, made, strict=True):
        expected = [advantages(np.asarray(rewards[at : at + SIZE]), 1.0, "centered") for at in range(0, 2 * SIZE, SIZE)]
        assert sorted(batch["advantages"].tolist()) == pytest.approx(sorted(np.concatenate(expected)), abs=1e-5)
    logged = [line for line in trainer.state.log_history if "rewards/hero_hero/mean" in line]
    assert len(logged) == 2 and all(0.4 <= line["hero/weight"] <= 3.0 for line in logged)


def test_bands_by_hand_and_conversations(hero: HeroReward) -> None:
    texts = [RIGHT, WRONG, RIGHT + " !", WRONG + " ?"]
    plain = hero(["6 * 7 = ?"] * SIZE, texts, answer=["42"] * SIZE)
    sigma, hero.sigma = hero.sigma, None
    talk = hero(
        [[{"role": "user", "content": "6 * 7 = ?"}]] * SIZE,
        [[{"role": "assistant", "content": text}] for text in texts],
        answer=["42"] * SIZE,
    )
    assert talk == plain and hero.sigma == sigma
    weight = (0.4 + 3.0) / 2  # the first group is weighted at its own spread
    assert sorted(plain) == pytest.approx([weight * r for r in (-0.1, 0.1, 0.9, 1.1)], abs=1e-3)
    assert min(plain[0], plain[2]) > max(plain[1], plain[3])


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"scale_rewards": "group"}, "HERO's weight cancels"),
        ({"scale_rewards": True}, "scale_rewards = True"),
        ({"scale_rewards": "batch"}, "or the batch"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "sum_then_normalize"),
        ({"num_generations": 1}, "2 completions at least"),
    ],
)
def test_a_trainer_in_which_hero_would_be_inert_is_refused(settings: Sections, changed: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        HeroReward(arguments(**changed), settings)


def test_split_groups_and_missing_golds_are_refused(hero: HeroReward) -> None:
    texts = [RIGHT] * SIZE
    for questions in (["a"] * 3, ["a", "a", "b", "b"], ["a"] * SIZE + ["b"] * 2):
        with pytest.raises(ConfigError, match="no whole groups of 4: make per_device_train_batch_size"):
            hero(questions, texts[:1] * len(questions), answer=["42"] * len(questions))
    with pytest.raises(DataError, match="no column 'answer'"):
        hero(["a"] * SIZE, texts, solution=["42"] * SIZE)
