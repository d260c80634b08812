"""The bench beside TRL, a few steps of a random policy: both sides run, and do the same work."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from common import config
from common.errors import ConfigError
from tests.bench import trl_side
from tests.bench.trl_loop import side_by_side
from tests.bench.trl_pace import Case
from tests.bench.trl_side import MODEL, STEPS_FILE, Shape
from tests.e2e.running import ENVIRONMENT, prepare

STEPS = 4


def test_both_sides_do_the_same_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a random policy that answers with random characters
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    flags = ("--eval.data=", "--data.system_prompt=Add.", "--learner.weight_decay=0.1")
    case = Case("tiny", prepare(tmp_path), flags, STEPS, slice(None), Shape(micro_batches=2))
    # When both train
    row = side_by_side(case, tmp_path, tmp_path / "policy")
    # Then both took as many steps, and completions are as long
    detail, run = row["detail"], tmp_path / "ours"
    theirs = [json.loads(line) for line in (tmp_path / "trl" / STEPS_FILE).read_text().splitlines()]
    assert detail["steps"] == STEPS and len(theirs) >= STEPS
    assert [line["step"] for line in theirs] == list(range(1, len(theirs) + 1))
    assert all(line["completions"] == 16 for line in theirs)
    assert detail["tokens_ratio"] == pytest.approx(1.0, abs=0.2)
    assert row["ratio"] == pytest.approx(detail["ours"]["completions_per_s"] / detail["trl"]["completions_per_s"], 1e-3)
    # And TRL went on for as long as ours, and left what it trained (by decay: no answer was right)
    assert theirs[-1]["time"] - theirs[0]["time"] >= detail["training_s"] - 0.1
    before, after = tmp_path / "policy" / "model.safetensors", tmp_path / "trl" / MODEL / "model.safetensors"
    assert after.stat().st_size == pytest.approx(before.stat().st_size, rel=0.01)
    assert after.read_bytes() != before.read_bytes()
    # And it saw the problems of our tickets in their order, of which ours trained on the first ones
    settings = config.from_dump((run / "settings.json").read_text())
    order = [problem.question for problem in trl_side.in_order(run, settings)]
    assert [line["questions"] for line in theirs[:STEPS]] == [order[at : at + 4] for at in range(0, 4 * STEPS, 4)]
    logged = [json.loads(line) for line in (run / "rewards" / "rewards.jsonl").read_text().splitlines()]
    assert {line["question"] for line in logged if line["step"] == 1} <= set(order[:8])


def test_what_would_make_them_differ_is_refused(tmp_path: Path) -> None:
    settings = config.load(prepare(tmp_path), ["--reward.mode=verifier"])
    assert trl_side.arguments(settings, tmp_path / "out", Shape(micro_batches=2)).generation_batch_size == 16
    for flag in ("--learner.objective=cispo", "--learner.mini_steps=2", "--reward.mode=hero"):
        flags = ["--reward.mode=verifier", "--learner.correction=none", flag]
        with pytest.raises(ConfigError, match="TRL would not do the same"):
            trl_side.arguments(config.load(prepare(tmp_path), flags), tmp_path / "out", Shape())


def test_other_prompts_or_another_end_are_refused(tmp_path: Path) -> None:
    from learner.render import Renderer

    settings = config.load(prepare(tmp_path), ["--reward.mode=verifier", f"--model.policy={tmp_path / 'policy'}"])
    (tmp_path / "prompts.jsonl").write_text(
        json.dumps({"question": "1 + 1 = ?", "answer": "2", "solution": None}) + "\n"
    )
    problems = trl_side.in_order(tmp_path, settings)
    renderer = Renderer(tmp_path / "policy", "")
    ids, end = renderer.prompt_ids("1 + 1 = ?").tolist(), renderer.tokenizer.eos_token_id

    def trainer(ids: list[int], ends: list[int]) -> SimpleNamespace:
        return SimpleNamespace(_tokenize_prompts=lambda _: ([ids], None, {}), eos_token_ids=ends)

    trl_side.refuse_other_tokens(trainer(ids, [end]), settings, problems)
    with pytest.raises(ConfigError, match="to our actors"):
        trl_side.refuse_other_tokens(trainer([1, *ids], [end]), settings, problems)
    with pytest.raises(ConfigError, match="ends a completion at any of"):
        trl_side.refuse_other_tokens(trainer(ids, [end, 1]), settings, problems)
