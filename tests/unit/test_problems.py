"""Prompts from files: what cannot be used is left out with its line number and reason; parts share nothing."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from common import problems
from common.errors import DataError
from common.problems import held_out, load, numbered, trained_on
from common.settings import Sections

GOOD = '{"question": "1 + 1 = ?", "answer": "2"}'


def sections(**parts: dict[str, Any]) -> Sections:
    return Sections.model_validate(parts)


def of_file(path: Path, **data: Any) -> Sections:
    return sections(data={"train": str(path), **data})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b'{"answer": "2"}', "no field 'question'; it has answer (settings data.question, data.answer)"),
        (b'{"question": "1", "gold": "2"}', "no field 'answer'; it has question, gold"),
        (b'{"question": "", "answer": "2"}', "field 'question' is empty"),
        (b'{"question": "  \\n", "answer": "2"}', "field 'question' is empty"),
        (b'{"question": ["1"], "answer": "2"}', "field 'question' is empty, or no text"),
        (b'{"question": "1", "answer": true}', "field 'answer' is no text or number"),
        (b'{"question": "1", "answer": ["2"]}', "field 'answer' is no text or number"),
        (b'{"question": "1", "answer": " "}', "field 'answer' is empty"),
        (b'{"question": "1", "answer": "steps #### "}', "field 'answer' is empty"),
        (b'{"question": "1", "answer": "' + b"9" * 4001 + b'"}', "over 4,000 characters"),
        (b'{"question": "' + b"q" * 4 * 2**20 + b'", "answer": "1"}', "longer than 4,194,304 bytes"),
    ],
)
def test_a_bad_line_is_left_out_with_number_and_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD.encode() + b"\n\n" + line + b"\n" + GOOD.encode())  # the last line has no end

    good, bad = numbered(of_file(file), "train")

    assert [number for number, _ in good] == [1, 4]
    assert [b.number for b in bad] == [3] and reason in bad[0].reason


def test_lines_keep_their_numbers_behind_bad_ones(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(f"nonsense\n{GOOD}\n\n{{}}\n{GOOD}\n")
    good, bad = numbered(of_file(file), "train")
    assert [number for number, _ in good] == [2, 5] and [b.number for b in bad] == [1, 4]


@pytest.mark.parametrize(
    ("answer", "gold"), [("2", "2"), (2, "2"), (0.5, "0.5"), ("so\n#### 1,000", "1,000"), ("a #### b #### 7 ", "7")]
)
def test_gold_answers(tmp_path: Path, answer: object, gold: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps({"q": "1", "a": answer, "s": "work"}))
    [problem], bad = load(of_file(file, question="q", answer="a", solution="s"), "train")
    assert (problem.answer, problem.solution, bad) == (gold, f"work\n\\boxed{{{gold}}}", [])


def test_a_compressed_file(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(gzip.compress(f"{GOOD}\nnonsense\n".encode()))
    good, bad = load(of_file(file), "train")
    assert len(good) == 1 and bad[0].number == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no usable line (0 bad): it is empty"),
        (b"nonsense\n{}\n", "no usable line (2 bad): line 1: not JSON"),
    ],
)
def test_a_file_without_a_usable_line_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load(of_file(file), "train")
    assert says in str(caught.value)


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(GOOD.encode() * 999)[:-20]])
def test_a_torn_compressed_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        load(of_file(file), "train")


def test_a_missing_file_and_no_file() -> None:
    with pytest.raises(DataError, match="there is no data file"):
        load(of_file(Path("nowhere.jsonl")), "train")
    with pytest.raises(DataError, match=r"data\.train is not set"):
        load(sections(data={"train": ""}), "train")


def test_a_limit_counts_usable_lines(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("nonsense\n" + f"{GOOD}\n" * 9)
    good, bad = load(of_file(file, limit=4), "train")
    assert len(good) == 4 and len(bad) == 1


FAMILIES = {"chain_sum": {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}, "gcd": {}}


def generated(seed: int) -> dict[str, list[str]]:
    """The questions of every part; `sums` and `more` are held out."""
    settings = sections(
        run={"seed": seed, "steps": 5},
        data={"train": "reasoning-gym", "families": FAMILIES},
        learner={"groups_per_step": 20},
        eval={"problems": 400, "data": {"sums": {"source": "reasoning-gym"}, "more": "reasoning-gym"}},
        sft={"examples": 80},
        rm={"prompts": 70},
    )
    held = {name: [problem.question for _, problem in good] for name, (good, _) in held_out(settings).items()}
    return held | {split: [p.question for p in load(settings, split)[0]] for split in SPLITS}


SPLITS: tuple[problems.Split, ...] = ("sft", "rm", "train")


def test_generated_parts_share_no_question_and_evaluation_is_fixed() -> None:
    parts = generated(0)
    assert {split: len(set(part)) for split, part in parts.items()} == {
        "sums": 400, "more": 400, "sft": 80, "rm": 70, "train": 100,
    }  # fmt: skip
    assert len(set().union(*parts.values())) == 400 + 400 + 80 + 70 + 100
    again, other = generated(0), generated(1)
    assert again == parts
    assert all(other[held] == parts[held] for held in ("sums", "more")), "held-out problems do not depend on the seed"
    assert other["train"] != parts["train"]


def test_held_out_sets_have_fields_and_families_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("nonsense\n" + f"{GOOD}\n" * 5)
    (tmp_path / "b.jsonl").write_text('{"problem": "2 + 2 = ?", "solution": "work #### 4"}\n')
    settings = sections(
        data={"families": {"gcd": {}}},
        eval={
            "problems": 3,
            "data": {
                "a": str(tmp_path / "a.jsonl"),
                "b": {"source": str(tmp_path / "b.jsonl"), "question": "problem", "answer": "solution"},
                "sums": {"source": "reasoning-gym", "families": {"chain_sum": {}}},
                "gcd": "reasoning-gym",
            },
        },
    )
    found = held_out(settings)
    assert list(found) == ["a", "b", "sums", "gcd"]
    assert [number for number, _ in found["a"][0]] == [2, 3, 4] and found["a"][1][0].number == 1
    assert [(p.question, p.answer) for _, p in found["b"][0]] == [("2 + 2 = ?", "4")]
    assert {p.meta["task"] for _, p in found["sums"][0]} == {"chain_sum"}
    assert {p.meta["task"] for _, p in found["gcd"][0]} == {"gcd"}


def test_what_is_trained_on_is_all_that_any_part_takes(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps({"question": f"{i}?", "answer": i, "work": "so"}) + "\n" for i in range(20)))
    parts = {"model": {"policy": "p"}, "sft": {"out": "p", "examples": 4}, "reward_model": {"model": "r"}}
    data = {"train": str(file), "solution": "work", "limit": 5}
    settings = sections(**parts, rm={"out": "r", "prompts": 3}, data=data)
    assert [p.answer for p in trained_on(settings)] == [str(i) for i in range(4 + 3 + 5)]
    assert [p.answer for p in load(settings, "train")[0]] == [str(i) for i in range(7, 12)]
