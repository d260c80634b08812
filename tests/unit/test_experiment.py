"""HERO against its baselines: the protocol is what it says, and the figures follow from the results file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import config
from common.errors import DataError, RunFolderError
from common.generated import training
from common.tasks import generate, judge
from deploy.experiments.hero_vs_baselines import analysis, claims, groups, notation, protocol, report
from deploy.experiments.hero_vs_baselines.__main__ import main
from deploy.experiments.hero_vs_baselines.gate import Verdict, measured
from deploy.experiments.hero_vs_baselines.protocol import Cell, Inputs
from deploy.experiments.hero_vs_baselines.results import Results, of
from scorer.answers import Answer
from scorer.verifier import judge_as_the_paper

INPUTS = Inputs(Path("policy"), {"task": Path("rm-task"), "gate": Path("rm-gate")})


def loaded(cell: Cell, folder: Path) -> config.Settings:
    file = folder / f"{cell.name}.json"
    file.write_text(json.dumps(protocol.settings(cell, INPUTS, folder / "run")))
    return config.load(file)


def run(mode: str, regime: str, seed: int, final: float, **more: Any) -> dict[str, Any]:
    """A result as `cell.result` makes it."""
    at = {test: {"greedy": final, "avg@8": final} for test in protocol.TESTS}
    lesson = {"groups": 0.5, "teachable": 0.25, "pull": 0.5, "agreement": 0.75, "margin": 0.1}
    point = {"step": 10, "accuracy": final, "accepted": final, "gate_recall": 0.4, "rm_score": seed, "rm_auroc": 0.8,
             "all_wrong": 0.5, "all_right": 0.0, "untaught": 0.1, "tokens": 30.0, "weight": 1.0}  # fmt: skip
    return {
        "mode": mode, "regime": regime, "seed": seed, "final": final, "seconds": 3600,
        "accuracy": [{"step": step, **at} for step in protocol.EVALUATED_AT], "training": [point, point | {"step": 20}],
        "lessons": {kind: lesson for kind in groups.KINDS}, **more,
    }  # fmt: skip


def results(tmp_path: Path, runs: list[dict[str, Any]]) -> Results:
    made = Results(tmp_path / "results.json")
    rates = {"right": 0.5, "recall": 0.4, "false_positive_rate": 0.01, "precision": 0.99}
    known = {
        "gate": {test: rates for test in protocol.TESTS},
        "reward_models": {
            labels: {test: {"auroc_within": 0.9} for test in protocol.TESTS} for labels in ("task", "gate")
        },
    }
    made.knows(1, known)
    for one in runs:
        made.add(one)
    return made


# The protocol


def test_the_main_cells_are_four_arms_in_three_regimes_with_five_seeds() -> None:
    cells = protocol.main_cells()
    assert len(cells) == len(set(cells)) == 60 and len({cell.seed for cell in cells}) == 5
    # Whatever is finished compares every arm: a seed is through before the next begins
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)


def test_every_cell_is_accepted_and_arms_differ_in_what_they_name_alone(tmp_path: Path) -> None:
    for arm, regime in [(arm, regime) for arm in protocol.ARMS for regime in protocol.REGIMES]:
        own = loaded(Cell(arm, regime, 1), tmp_path).model_dump(mode="json")
        hero = loaded(Cell("hero", regime, 1), tmp_path).model_dump(mode="json")
        changed = {
            (section, key) for section in own for key in own[section] if own[section][key] != hero[section][key]
        } - {("run", "name")}
        named = {(section, key) for section, keys in protocol.ARMS[arm].changes.items() for key in keys}
        own_model = {("reward_model", "model")} if protocol.ARMS[arm].labels != "task" else set()
        assert changed <= named | own_model, arm


def test_all_arms_of_a_regime_see_the_same_prompts_and_none_of_the_held_out_or_earlier_ones(tmp_path: Path) -> None:
    by_arm = [training(loaded(Cell(arm, "mixed", 3), tmp_path), "train", 200) for arm in ("verifier", "hero", "oracle")]
    assert by_arm[0] == by_arm[1] == by_arm[2]
    for regime in protocol.REGIMES:
        settings = loaded(Cell("hero", regime, 3), tmp_path)
        trained = {p.question for p in training(settings, "train", None)}
        # Cold start and reward model are made of all families' problems
        mixed = loaded(Cell("hero", "mixed", 3), tmp_path)
        for split in ("sft", "rm"):
            assert trained.isdisjoint(p.question for p in training(mixed, split, None))


def test_an_ablation_that_is_hero_itself_is_not_run_again() -> None:
    hard = {cell.arm for cell in protocol.ablation_cells("hard", [1])}
    easy = {cell.arm for cell in protocol.ablation_cells("easy", [1])}
    assert protocol.ABLATIONS.keys() - hard == {"width_0.1"}
    assert protocol.ABLATIONS.keys() - easy == {"width_0.05"}


# The notations


@pytest.mark.parametrize(("test", "least", "most"), [("easy", 1.0, 1.0), ("hard", 0.2, 0.5)])
def test_every_notation_is_right_and_the_gate_knows_the_gold_one_alone(test: str, least: float, most: float) -> None:
    problems = generate(protocol.TESTS[test], 200, seed=5)
    accepted = []
    for problem in problems:
        solution = notation.solution(problem)
        assert judge(problem.meta, problem.answer, solution) == 1.0
        accepted.append(judge_as_the_paper(problem.answer, Answer(notation.answer(problem), "exact")).correct)
    assert least <= np.mean(accepted) <= most


def test_the_wording_alone_decides_the_notation() -> None:
    seen: dict[str, set[bool]] = {}
    for problem in generate(protocol.HARD, 400, seed=6):
        wording = "".join(c for c in problem.question if not c.isdigit() and c not in "+-.i")
        seen.setdefault(wording[:25], set()).add(notation.answer(problem) == problem.answer)
    assert all(len(same) == 1 for same in seen.values())
    assert {True, False} == {one for same in seen.values() for one in same}


def test_the_gates_rates() -> None:
    def of(right: bool, accepted: bool, task: str = "a") -> Verdict:
        return Verdict(0, task, "", right, accepted)

    found = measured([of(True, True), of(True, False), of(True, False), of(False, True, "b"), of(False, False)])
    assert (found["recall"], found["false_positive_rate"], found["precision"]) == (1 / 3, 1 / 2, 1 / 2)
    assert found["families"]["a"]["recall"] == 1 / 3 and found["families"]["b"]["recall"] is None


# What the groups taught


def a_group(
    statuses: str, truth: str, advantages: list[float], scores: list[float] | None = None, step: int = 1
) -> Any:
    made = [
        {
            "status": "correct" if s == "+" else "wrong", "advantage": a, "tokens": 10,
            "rm_score": None if scores is None else scores[i],
        }
        for i, (s, a) in enumerate(zip(statuses, advantages, strict=True))
    ]  # fmt: skip
    return groups.group({"step": step, "weight": 2.0, "completions": made}, [t == "+" for t in truth])


def test_kinds_and_lessons() -> None:
    # Given a group that the gate calls all wrong, where a right one (by truth) is ranked above one of two wrong ones
    revived = a_group("---", "-+-", [0.1, 0.0, -0.1], [3.0, 2.0, 1.0])
    mixed = a_group("+--", "++-", [0.6, -0.3, -0.3])
    right = a_group("++", "++", [0.0, 0.0])
    assert [one.kind for one in (revived, mixed, right)] == ["all_wrong", "mixed", "all_right"]
    found = groups.lessons([revived, mixed, right, right])
    assert found["all_wrong"] == {
        "groups": 0.25, "teachable": 1.0, "pull": pytest.approx(0.2 / 1.4), "agreement": 0.5,
        "margin": pytest.approx(0.0),
    }  # fmt: skip
    # A tie counts half
    assert found["mixed"]["agreement"] == 0.75 and found["mixed"]["margin"] == pytest.approx(0.45)
    assert found["all_right"] == {"groups": 0.5, "teachable": 0.0, "pull": 0.0, "agreement": None, "margin": None}


def test_the_series() -> None:
    first = a_group("+-", "++", [0.5, -0.5], [2.0, 1.0], step=1)
    second = a_group("--", "+-", [0.0, 0.0], [4.0, 5.0], step=2)
    third = a_group("--", "--", [0.1, -0.1], [1.0, 1.0], step=3)
    found = groups.series([first, second, third], every=2)
    assert [line["step"] for line in found] == [2, 4]
    assert found[0]["accuracy"] == 0.75 and found[0]["gate_recall"] == pytest.approx(1 / 3)
    assert (
        found[0]["rm_score"] == 3.0 and found[0]["rm_auroc"] == 0.0
    )  # of the second alone: the first has no wrong one
    assert found[0]["all_wrong"] == 0.5 and found[0]["untaught"] == 0.5
    assert found[1]["gate_recall"] is None and found[1]["rm_auroc"] is None
    assert groups.series([a_group("+-", "+-", [0.5, -0.5])], every=2)[0]["rm_score"] is None


# The figures


def test_students_interval() -> None:
    # The textbook's: 2.776 for five values
    found = analysis.student([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5) / math.sqrt(5)
    assert (found.value, found.low, found.high) == pytest.approx((3.0, 3.0 - half, 3.0 + half))
    assert analysis.student([1.0]).high == math.inf
    assert [analysis.verdict(analysis.student(v)) for v in ([1, 1.1], [-1, -1.1], [1, -1])] == [
        "holds",
        "fails",
        "open",
    ]


def test_differences_are_paired_by_seed() -> None:
    # Given seeds that differ by far more than the arms do
    runs = [run("hero", "hard", seed, 0.1 * seed + 0.02 + 0.001 * seed) for seed in (1, 2, 3, 5)]
    runs += [run("verifier", "hard", seed, 0.1 * seed) for seed in (1, 2, 3, 4)]
    found = analysis.difference(analysis.by_arm(runs), "hard", "hero", "verifier")
    assert found and list(found.by_seed) == [1, 2, 3] and found.verdict == "holds"
    assert found.estimate.value == pytest.approx(0.022)
    assert analysis.difference(analysis.by_arm(runs), "hard", "hero", "rm") is None


def test_ablations_go_where_hero_gained_most_and_not_before_that_is_known(tmp_path: Path) -> None:
    gains = {"easy": 0.01, "hard": 0.05, "mixed": 0.02}
    runs = [run("verifier", regime, seed, 0.5) for regime in gains for seed in protocol.SEEDS]
    runs += [run("hero", regime, seed, 0.5 + gain) for regime, gain in gains.items() for seed in protocol.SEEDS]
    assert analysis.where_hero_gained_most(results(tmp_path, runs)) == "hard"
    with pytest.raises(DataError, match="main cells come first"):
        analysis.where_hero_gained_most(results(tmp_path / "less", runs[:-1]))


# The file, the report


def test_results_are_kept_replaced_and_bound_to_their_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = results(tmp_path, [run("hero", "hard", 1, 0.123456789)])
    made.add(run("hero", "hard", 1, 0.5))
    again = Results(made.file)
    assert [one["final"] for one in again.runs] == [0.5] and again.has(Cell("hero", "hard", 1))
    assert of(again.runs[0]) == Cell("hero", "hard", 1) and not again.has(Cell("hero", "hard", 2))
    # Under another protocol they are not mixed
    monkeypatch.setattr(protocol, "SEEDS", (7,))
    with pytest.raises(RunFolderError, match="another protocol"):
        Results(made.file)
    monkeypatch.undo()
    made.file.write_text("[]")
    with pytest.raises(RunFolderError, match="holds no results"):
        Results(made.file)


def test_the_report_says_what_the_file_shows(tmp_path: Path) -> None:
    gains = {"verifier": 0.0, "rm": -0.1, "blend": 0.01, "hero": 0.05, "oracle": 0.1, "hero_gate_rm": 0.04}
    runs = [
        run(arm, regime, seed, 0.5 + 0.01 * seed + gain + 0.001 * (seed % 2))
        for arm, gain in gains.items()
        for regime in protocol.REGIMES
        for seed in (1, 2, 3)
    ]
    noisy = [run("dense_negatives", "hard", seed, 0.5 + 0.1 * (-1) ** seed) for seed in (1, 2, 3)]
    made = results(tmp_path, [*runs, *noisy])
    told = claims.lines(made)
    hero = next(line for line in told if line.startswith("HERO beats the verifier"))
    assert "hard +5.0 [5.0, 5.0], holds" in hero and hero.count("holds") == 3
    assert any(line.startswith("Changed from HERO in the regime hard: dense_negatives") for line in told)
    assert "recall 40.0 %" in told[0]
    assert ["hard", "rm - hero"] not in [row[:2] for row in report.difference_rows(made)]
    page = report.write(made, tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 and "://" not in page
    for line in told:
        assert line.replace("'", "&#39;").replace(">", "&gt;") in page


def test_the_readme_has_what_the_committed_results_show() -> None:
    folder = Path(protocol.__file__).parent
    told = " ".join((folder.parents[2] / "README.md").read_text().split())
    for line in claims.lines(Results(folder / "results.json")):
        assert line in told


def test_what_could_not_be_measured_is_a_dash(tmp_path: Path) -> None:
    # Given a policy that solves nothing: no recall, no AUROC
    made = results(tmp_path, [run("hero", "hard", 1, 0.0)])
    made.seeds["1"]["gate"]["hard"] |= {"recall": None, "precision": None}
    made.seeds["1"]["reward_models"]["gate"]["hard"]["auroc_within"] = None
    assert report.gate_rows(made)[1] == ["1", "hard", "50.0", "-", "1.0", "-", "90.0", "-"]
    assert report.write(made, tmp_path / "report.html").is_file() and len(report.tables(made)) == 3


def test_with_nothing_finished_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--arms", "ablations", "--out", str(tmp_path)]) != 0
    assert "main cells come first" in capsys.readouterr().err
    for wrong in ("hero-hard", "hero-hard-x", "heros-hard-1", "hero-harder-1"):
        assert main(["--only", wrong, "--out", str(tmp_path)]) != 0
        assert "ARM-REGIME-SEED" in capsys.readouterr().err
