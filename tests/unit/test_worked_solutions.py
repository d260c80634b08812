"""Worked solutions reach the cold start in the form that the verifier reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import DataError
from common.problems import load
from common.settings import DataSettings, ModelSettings, RewardModelSettings, RMSettings, Sections, SFTSettings
from common.worked import worked_solution
from scorer.answers import find_answer

GSM8K = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nAltogether 48+24 = <<48+24=72>>72 clips.\n#### 72"
CLEAN = "Natalia sold 48/2 = 24 clips in May.\nAltogether 48+24 = 72 clips.\n\\boxed{72}"


@pytest.mark.parametrize(
    ("text", "answer", "expected"),
    [
        (GSM8K, "72", CLEAN),
        (CLEAN, "72", CLEAN),
        ("He pays $<<0.2*50=10>>10.\n#### 1,010", "1,010", "He pays $10.\n\\boxed{1,010}"),
        ("so x = 4", "4", "so x = 4\n\\boxed{4}"),
        ("Hence \\boxed{\\frac{1}{2}}.", "1/2", "Hence \\boxed{\\frac{1}{2}}."),
        ("#### 5", "5", "\\boxed{5}"),
        ("1 << 3 is 8, and 8 >> 3 is 1", "1", "1 << 3 is 8, and 8 >> 3 is 1\n\\boxed{1}"),
    ],
)
def test_the_solution_ends_in_a_box_and_has_no_marks(text: str, answer: str, expected: str) -> None:
    assert worked_solution(text, answer) == expected


def test_the_verifier_finds_the_gold_answer_in_it() -> None:
    found = find_answer(worked_solution(GSM8K, "72"), 4000)
    assert found is not None and found == ("72", "exact")


def _settings(file: Path, **given: object) -> Sections:
    return Sections(data=DataSettings(train=str(file), solution="answer"), **given)  # type: ignore[arg-type]


def _file(folder: Path, rows: int) -> Path:
    file = folder / "train.jsonl"
    file.write_text(
        "".join(
            json.dumps({"question": f"question {i}", "answer": f"<<1+1=2>>2\n#### {i}"}) + "\n" for i in range(rows)
        )
    )
    return file


def test_gsm8k_rows_give_answer_and_solution_from_one_field(tmp_path: Path) -> None:
    problems, bad = load(_settings(_file(tmp_path, 3)), "train")
    assert not bad
    assert [(p.answer, p.solution) for p in problems] == [(str(i), f"2\n\\boxed{{{i}}}") for i in range(3)]


def test_rows_that_made_the_policy_or_the_reward_model_are_not_trained_on(tmp_path: Path) -> None:
    sft, rm = SFTSettings(examples=3, out=tmp_path / "policy"), RMSettings(prompts=2, out=tmp_path / "rm")
    own = {
        "sft": sft,
        "rm": rm,
        "model": ModelSettings(policy=str(sft.out)),
        "reward_model": RewardModelSettings(model=str(rm.out)),
    }
    settings = _settings(_file(tmp_path, 9), **own)
    parts = {
        split: {p.question for p in load(settings, split, count)[0]}
        for split, count in (("sft", 3), ("rm", 2), ("train", None))
    }
    assert [len(parts[split]) for split in ("sft", "rm", "train")] == [3, 2, 4]
    assert len(set.union(*parts.values())) == 9

    foreign = _settings(_file(tmp_path, 9), sft=sft, rm=rm, model=ModelSettings(policy="elsewhere"))
    assert len(load(foreign, "train")[0]) == 9

    with pytest.raises(DataError, match=r"5 usable.*sft\.examples = 3.*rm\.prompts = 2"):
        load(_settings(_file(tmp_path, 5), **own), "train")
