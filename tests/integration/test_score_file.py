"""`hero score` on files: one row out per row in, whatever is in it."""

import gzip
import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import DataError, ModelError
from scorer.hero import difficulty_weight, scale_free_weight, stratified_rewards
from scorer.sandbox import Sandbox
from scorer.score_file import score_file, whole_or_nothing

GOOD = {"question": "6*7=?", "gold": "42", "completions": [r"\boxed{42}", r"\boxed{4}", "42 it is $42$", ""], "id": 7}


class LengthModel:
    """Scores a completion by its length; refuses 'poison', finds 'too long' too long."""

    name = "lengths@1"
    calls = 0

    def score(self, samples):
        self.calls += 1
        if any("poison" in sample.completion for sample in samples):
            raise ModelError("the score is nan")
        texts = [sample.completion for sample in samples]
        return np.array([math.nan if "too long" in text else float(len(text)) for text in texts])


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(1, 10.0, 512, 4000, 10_000) as sandbox:
        yield sandbox


def options(mode, weighting="paper"):
    return SimpleNamespace(
        mode=mode, alpha=0.1, beta=0.1, eps=1e-6, lone="floor", dense="both", weighting=weighting,
        w_min=0.4, w_max=3.0, k=6.0, k_z=1.7, blend_weight=0.5,
        sigma_momentum=0.9,
    )  # fmt: skip


def score(tmp_path, sandbox, lines, mode="verifier", model=None, weighting="paper"):
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"\n".join(x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines))
    out = io.StringIO()
    summary = score_file(
        source, out, options=options(mode, weighting), sandbox=sandbox, reward_model=model, progress=False
    )
    return summary, [json.loads(line) for line in out.getvalue().splitlines()]


def test_verifier_mode(tmp_path, sandbox):
    summary, (row,) = score(tmp_path, sandbox, [GOOD])
    assert {key: row[key] for key in GOOD} == GOOD
    assert row["statuses"] == ["correct", "wrong", "correct", "no_answer"]
    assert row["rules"] == ["same text", None, "same text", None]
    assert row["extracted"] == ["42", "4", "42", None]
    assert row["rm_scores"] is None
    assert row["r_hat"] == row["rewards"] == [1, 0, 1, 0]
    assert row["weight"] == 1
    assert (summary.rows, summary.exit_code, dict(summary.statuses)) == (
        1,
        0,
        {"correct": 2, "wrong": 1, "no_answer": 1},
    )


def test_hero_mode_with_a_running_sigma_bar(tmp_path, sandbox):
    other = GOOD | {"completions": [r"\boxed{42}", r"I guess \boxed{41}"]}
    _, rows = score(tmp_path, sandbox, [GOOD, other, GOOD], "hero", LengthModel())
    bar = None
    for row in rows:
        scores = [float(len(text)) for text in row["completions"]]
        correct = [status == "correct" for status in row["statuses"]]
        sigma = float(np.std(scores))
        weight = difficulty_weight(sigma, sigma if bar is None else bar)
        bar = sigma if bar is None else 0.9 * bar + 0.1 * sigma
        assert row["rm_scores"] == scores
        assert row["r_hat"] == pytest.approx(stratified_rewards(correct, scores, alpha=0.1, beta=0.1))
        assert row["weight"] == pytest.approx(weight)
        assert row["rewards"] == pytest.approx([weight * r for r in row["r_hat"]])
    assert rows[0]["weight"] != rows[2]["weight"]


def test_a_scale_free_weight_with_a_running_deviation(tmp_path, sandbox):
    other = GOOD | {"completions": [r"\boxed{42}", r"I guess \boxed{41}"]}
    _, rows = score(tmp_path, sandbox, [GOOD, other, GOOD], "hero", LengthModel(), "scale_free")
    bar, variance = None, 0.0
    for row in rows:
        sigma = float(np.std([len(text) for text in row["completions"]]))
        at = sigma if bar is None else bar
        assert (row["sigma_bar"], row["sigma_dev"]) == (pytest.approx(at), pytest.approx(variance**0.5))
        assert row["weight"] == pytest.approx(scale_free_weight(sigma, at, variance**0.5))
        variance = 0.9 * (variance + 0.1 * (sigma - at) ** 2)
        bar = 0.9 * at + 0.1 * sigma
    assert rows[0]["weight"] == rows[1]["weight"] == pytest.approx(1.7), "nothing is known to differ yet"
    assert rows[2]["weight"] > 1.7


@pytest.mark.parametrize(("mode", "expected"), [("rm", [10, 9, 13, 0]), ("blend", [5.5, 4.5, 7, 0])])
def test_the_other_modes(tmp_path, sandbox, mode, expected):
    _, (row,) = score(tmp_path, sandbox, [GOOD], mode, LengthModel())
    assert row["rewards"] == expected


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"{", "not JSON"),
        (b'{"question": "?", "gold": NaN}', "NaN"),
        (b'{"x": 1e999}', "too large"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "list"),
        ({"question": "?", "completions": ["1"]}, "lacks the field gold"),
        (GOOD | {"question": 3}, "question"),
        (GOOD | {"gold": " "}, "gold"),
        (GOOD | {"gold": None}, "gold"),
        (GOOD | {"gold": r"\frac{1}{"}, "cannot read"),
        (GOOD | {"completions": []}, "completions"),
        (GOOD | {"completions": "42"}, "completions"),
        (GOOD | {"completions": ["42", 42]}, "completions"),
        (GOOD | {"meta": {"task": 3}}, "meta"),
        (GOOD | {"completions": ["poison"]}, "the score is nan"),
    ],
)
def test_a_bad_row_stays_in_its_place_with_the_reason(tmp_path, sandbox, line, error):
    summary, rows = score(tmp_path, sandbox, [GOOD, line, GOOD | {"gold": 42}], "rm", LengthModel())
    assert len(rows) == summary.rows == 3
    assert "rewards" in rows[0]
    assert "rewards" in rows[2]
    assert error in rows[1]["error"]
    assert "rewards" not in rows[1]
    if isinstance(line, dict):
        assert {key: rows[1][key] for key in line} == line
    else:
        assert rows[1]["line"] == 2
    assert list(summary.errors) == [2]
    assert summary.exit_code == 1


def test_hostile_completions_get_a_status_each(tmp_path):
    hostile = [r"\boxed{9^{9^{9^9}}}", "x" * 100_000, "\x00\x1b[31m", r"\boxed{42}"]
    with Sandbox(1, 1.0, 512, 4000, 10_000) as impatient:
        _, (row,) = score(tmp_path, impatient, [GOOD | {"completions": hostile}])
    assert row["statuses"] == ["timeout", "no_answer", "no_answer", "correct"]


def test_too_long_for_the_reward_model(tmp_path, sandbox):
    long = GOOD | {"completions": [r"too long \boxed{42}", r"\boxed{42}", "abc"]}
    _, (row,) = score(tmp_path, sandbox, [long], "hero", LengthModel())
    assert row["statuses"] == ["context_overflow", "correct", "no_answer"]
    assert row["rm_scores"] == [None, 10.0, 3.0]
    assert row["rewards"][1] == max(row["rewards"])


def test_a_score_that_is_not_finite(tmp_path, sandbox):
    class Overflowing(LengthModel):
        def score(self, samples):
            return np.array([math.inf if "42" in s.completion else float(len(s.completion)) for s in samples])

    _, (row,) = score(tmp_path, sandbox, [GOOD], "hero", Overflowing())
    assert row["statuses"] == ["not_finite", "wrong", "not_finite", "no_answer"]
    assert row["rm_scores"] == [None, 9.0, None, 0.0]
    assert max(row["r_hat"]) <= 0.1


def test_chunks_blank_lines_and_gzip(tmp_path, sandbox, monkeypatch):
    monkeypatch.setattr("scorer.score_file.CHUNK_ROWS", 2)
    source = tmp_path / "rows.jsonl.gz"
    rows = [GOOD | {"id": number} for number in range(5)]
    source.write_bytes(gzip.compress("\n\n".join(map(json.dumps, rows)).encode()))
    out, model = io.StringIO(), LengthModel()
    score_file(source, out, options=options("rm"), sandbox=sandbox, reward_model=model, progress=True)
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == [0, 1, 2, 3, 4]
    assert model.calls == 3


def test_a_line_without_end_is_refused_and_the_next_one_read(tmp_path, sandbox, monkeypatch):
    monkeypatch.setattr("scorer.score_rows.MAX_LINE_BYTES", 1000)
    summary, rows = score(tmp_path, sandbox, [b"x" * 5000, GOOD])
    assert "bytes" in rows[0]["error"]
    assert "rewards" in rows[1]
    assert list(summary.errors) == [1]


def test_a_file_that_cannot_be_used_is_refused(tmp_path, sandbox):
    with pytest.raises(DataError, match="no rows"):
        score(tmp_path, sandbox, [b""])
    rest = {"options": options("verifier"), "sandbox": sandbox, "reward_model": None, "progress": False}
    with pytest.raises(DataError, match="cannot be read"):
        score_file(tmp_path / "absent.jsonl", io.StringIO(), **rest)
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(json.dumps(GOOD).encode() * 999)[:-20])
    with pytest.raises(DataError, match="damaged"):
        score_file(torn, io.StringIO(), **rest)
    with pytest.raises(ValueError, match="needs a reward model"):
        score(tmp_path, sandbox, [GOOD], "hero")


def test_an_output_file_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), whole_or_nothing(tmp_path / "out.jsonl") as out:
        out.write("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with whole_or_nothing(tmp_path / "out.jsonl") as out:
        out.write("all")
    assert (tmp_path / "out.jsonl").read_text() == "all"
