"""One whole run of `hero up`: real server, vLLM, math-verify, reward model, DeepSpeed, evaluation."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from common import config
from scorer.hero import difficulty_weight, stratified_rewards
from scorer.rewards import settle
from tests.e2e.running import Hero, prepare, processes
from tests.until import until

pytestmark = pytest.mark.timeout(900)  # about a minute on two quiet cores

STEPS, GROUPS, COMPLETIONS = 4, 4, 4


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("hero"), 'data = ["reasoning-gym"]\nproblems = 32\nsamples = 2\nk = [2]')


@pytest.fixture(scope="module")
def finished(config_file: Path) -> Iterator[Hero]:
    """A run that has come to its end."""
    hero = Hero(config_file)
    try:
        assert hero.wait(800) == 0, hero.told()
        yield hero
    finally:
        hero.end()


def reward_lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rewards" / "rewards.jsonl").open(encoding="utf-8")]


def test_it_ends_with_a_summary_whose_books_balance(finished: Hero) -> None:
    summary = json.loads((finished.folder / "summary.json").read_text())
    books = summary["tickets"]
    assert summary["steps"] == STEPS and summary["groups_trained"] == books["trained"] == STEPS * GROUPS
    assert books["issued"] == sum(books[name] for name in ("trained", "dropped", "dead_lettered", "in_flight"))
    for moment in ("accuracy_before", "accuracy_after"):
        assert set(summary[moment]) == {"greedy", "sampled"}
        assert all(0 <= share <= 1 for share in summary[moment].values())
    assert {"evaluation_before", "training", "evaluation_after"} <= summary["seconds"].keys()
    assert summary["held_out_problems"] == 32 and summary["by_task"]["after"].keys() == {"chain_sum"}
    assert summary["tokens_per_second"] > 0
    assert "summary.json" in finished.output.read_text(), "the user is told where it is"


def test_the_evaluation_before_and_after_is_that_of_hero_eval(finished: Hero) -> None:
    summary = json.loads((finished.folder / "summary.json").read_text())
    found = json.loads((finished.folder / "eval" / "eval.json").read_text())
    assert list(found["models"]) == ["before", "after"]
    for moment, model in found["models"].items():
        accuracies = model["sets"]["reasoning-gym"]["accuracy"]
        assert list(accuracies) == ["greedy", "pass@1", "pass@2", "maj@2"]
        assert summary[f"accuracy_{moment}"] == {
            "greedy": accuracies["greedy"]["value"], "sampled": accuracies["pass@1"]["value"],
        }  # fmt: skip
    for line in found["comparisons"]:
        name = {"greedy": "greedy", "pass@1": "sampled"}[line["figure"]]
        assert summary["accuracy_gain"][name]["difference"] == line["difference"]
        gain = summary["accuracy_after"][name] - summary["accuracy_before"][name]
        assert line["difference"] == pytest.approx(gain) and line["low"] <= line["difference"] <= line["high"]
        assert 0 < line["p"] <= 1
    assert (finished.folder / "eval" / "eval.png").read_bytes().startswith(b"\x89PNG")
    assert "held-out accuracy, sampled" in finished.output.read_text()


def test_the_engine_computed_what_the_learner_computed(finished: Hero) -> None:
    difference = json.loads((finished.folder / "summary.json").read_text())["max_logprob_difference"]
    assert 0 < difference < 1e-3


def test_every_step_is_reported(finished: Hero) -> None:
    lines = [json.loads(line) for line in (finished.folder / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert max(line["staleness_max"] for line in lines) <= 1
    assert all(line["skipped_steps"] == 0 and line["grad_norm"] > 0 for line in lines)
    for line in lines:
        books = line["tickets"]
        assert books["issued"] == sum(count for name, count in books.items() if name != "issued")


def test_every_reward_can_be_derived_from_the_reward_log(finished: Hero) -> None:
    s = config.from_dump((finished.folder / "settings.json").read_text()).reward
    lines = [line for line in reward_lines(finished.folder) if line["outcome"] == "trained"]
    assert len(lines) == STEPS * GROUPS
    for line in lines:
        group = line["completions"]
        raw = np.array([np.nan if c["rm_score"] is None else c["rm_score"] for c in group])
        statuses, scores = settle([c["status"] for c in group], raw)
        correct = [status == "correct" for status in statuses]
        r_hat = stratified_rewards(correct, scores, alpha=s.alpha, beta=s.beta, eps=s.eps, lone=s.lone)
        weight = difficulty_weight(line["sigma_u"], line["sigma_bar"], w_min=s.w_min, w_max=s.w_max, k=s.k)
        assert len(group) == COMPLETIONS and line["sigma_u"] == pytest.approx(np.std(scores))
        assert weight == line["weight"]
        np.testing.assert_array_equal(weight * r_hat, [c["reward"] for c in group])
        np.testing.assert_allclose([c["advantage"] for c in group], weight * (r_hat - r_hat.mean()), atol=1e-12)
        assert all(sum(run[0] for run in c["versions"]) == c["tokens"] for c in group)


def test_both_scorers_and_all_files_are_there(finished: Hero) -> None:
    folder = finished.folder
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (folder / "export" / "config.json").is_file() and (folder / "export" / "model.safetensors").is_file()
    assert config.from_dump((folder / "settings.json").read_text()).learner.groups_per_step == GROUPS
    for name in ("learner", "actor-0", "scorer-0", "scorer-1"):
        command = shlex.split((folder / "logs" / f"{name}.cmd").read_text())
        assert name.partition("-")[0] in command and str(folder / "settings.json") in command
        assert (folder / "logs" / f"{name}.log").is_file()


def test_the_bad_line_is_named_and_training_went_on(finished: Hero) -> None:
    [bad] = [json.loads(line) for line in (finished.folder / "bad_lines.jsonl").open()]
    assert bad["number"] == 8 and bad["reason"].startswith("not JSON")
    assert len((finished.folder / "prompts.jsonl").read_text().splitlines()) == 19
    assert "1 of 20 lines cannot be used" in finished.output.read_text()


def test_no_process_is_left(finished: Hero) -> None:
    until(lambda: not [p for p in processes() if str(finished.folder) in p.command], "end of all")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "is finished; set run.folder to a new folder, or run.steps above 4"),
        (["--reward.alpha", "0.05"], "differs in reward.alpha"),
    ],
)
def test_the_folder_of_a_finished_run_is_not_overwritten(
    finished: Hero, config_file: Path, flags: list[str], says: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")}
    again = Hero(config_file, *flags)
    assert again.wait(120) == 5
    assert says in again.output.read_text()
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*")} == before


def test_a_dry_run_starts_nothing(config_file: Path) -> None:
    dry = Hero(config_file, "--dry-run", "--run.folder", str(config_file.parent / "dry"))
    assert dry.wait(120) == 0
    assert "nothing was started" in dry.output.read_text()
    assert not (config_file.parent / "dry").exists()


def test_the_export_is_an_ordinary_model(finished: Hero, config_file: Path) -> None:
    """Loaded by transformers alone, and changed by training."""
    from safetensors.numpy import load_file

    trained = load_file(finished.folder / "export" / "model.safetensors")
    start = load_file(config_file.parent / "policy" / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    assert trained.keys() == start.keys()
    assert not np.array_equal(trained[name], start[name]) and np.isfinite(trained[name]).all()
