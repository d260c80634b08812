"""The experiment's command from nothing to its report, in small: real cold start, reward models, runs, figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.experiments.hero_vs_baselines import cell, protocol
from deploy.experiments.hero_vs_baselines.__main__ import main

pytestmark = pytest.mark.timeout(900)

SMALLER = {
    "steps = 120": "steps = 4",
    "groups_per_step = 32": "groups_per_step = 4",
    "groups_in_flight = 32": "groups_in_flight = 4",
    "export_every_steps = 40": "export_every_steps = 2",
    "problems = 400": "problems = 12",
    "samples = 8": "samples = 2",
    "examples = 12000": "examples = 2500",
    "prompts = 10000": "prompts = 100",
    "kv_cache_gib = 0.25": "kv_cache_gib = 0.05",
}
EASY = {"chain_sum": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2}}
HARD = {
    "complex_arithmetic": {
        "min_real": 0, "max_real": 9, "min_imag": 0, "max_imag": 9,
        "operations": ["+", "-"], "operations_weights": [0.5, 0.5],
    },
}  # fmt: skip
"""Problems that 2,500 worked solutions are enough for."""


@pytest.fixture
def smaller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The protocol with other sizes: everything else is as the user has it."""
    text = protocol.BASE.read_text()
    for old, new in SMALLER.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (tmp_path / "base.toml").write_text(text)
    monkeypatch.setattr(protocol, "BASE", tmp_path / "base.toml")
    monkeypatch.setattr(protocol, "EVALUATED_AT", (0, 2, 4))
    monkeypatch.setattr(protocol, "CRITIC", {"sft": protocol.CRITIC["sft"] | {"epochs": 2}})
    monkeypatch.setattr(protocol, "TESTS", {"easy": EASY, "hard": HARD})
    regimes = {"easy": protocol.Regime(EASY, 0.05), "hard": protocol.Regime(HARD, 0.1)}
    monkeypatch.setattr(protocol, "REGIMES", regimes | {"mixed": protocol.Regime(EASY | HARD, 0.1)})
    monkeypatch.setattr(cell, "SERIES_EVERY", 2)


def test_a_cell_from_nothing_and_the_rest_of_them_later(
    smaller: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # When one cell is asked for, on a machine that has nothing yet
    out = tmp_path / "out"
    assert main(["--only", "hero-hard-7", "--out", str(out)]) == 0, capsys.readouterr()
    # Then its result has everything, from the real system
    found = json.loads((out / "results.json").read_text())
    [run] = found["runs"]
    assert (run["mode"], run["regime"], run["seed"], run["steps"], run["groups_trained"]) == ("hero", "hard", 7, 4, 16)
    assert [at["step"] for at in run["accuracy"]] == [0, 2, 4]
    assert all(
        0 <= at[test][figure] <= 1
        for at in run["accuracy"]
        for test in ("easy", "hard")
        for figure in ("greedy", "avg@8")
    )
    assert run["final"] == run["accuracy"][-1]["hard"]["avg@8"]
    assert [line["step"] for line in run["training"]] == [2, 4]
    assert all(line["rm_score"] is not None and 0 <= line["accuracy"] <= 1 for line in run["training"])
    assert sum(run["lessons"][kind]["groups"] for kind in ("all_wrong", "mixed", "all_right")) == pytest.approx(1)
    seed = found["seeds"]["7"]
    assert seed["gate"]["easy"]["samples"] == 24 and set(seed["reward_models"]) == {"task", "gate"}
    assert seed["policy"] == run["policy"]
    # And the report is there
    said = capsys.readouterr().err
    assert "report.html" in said and "final accuracy" in said
    assert (out / "report.html").read_text().count("data:image/png") == 5
    # When the same is asked for again, and then another arm, nothing is done twice
    made = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    assert main(["--only", "hero-hard-7", "--out", str(out)]) == 0
    assert main(["--only", "oracle-easy-7", "--out", str(out)]) == 0, capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in made} == made
    runs = {run["mode"]: run for run in json.loads((out / "results.json").read_text())["runs"]}
    assert runs.keys() == {"hero", "oracle"} and runs["oracle"]["policy"] == run["policy"]
    assert all(line["rm_score"] is None and line["rm_auroc"] is None for line in runs["oracle"]["training"])
    # The truth is the oracle's gate
    assert all(line["gate_recall"] in (None, 1.0) for line in runs["oracle"]["training"])
