"""`hero eval` around the engine: sets with what is odd about them, votes by the real verifier, results and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from common.errors import DataError, RunFolderError
from common.problems import MAX_ANSWER_CHARS
from common.settings import Sections
from deploy.cli import main
from deploy.evaluation import rows, run, sample, sets
from deploy.judging import sandbox_of
from deploy.sampling import Completed
from tests.make import evaluated


def settings(**parts: Any) -> Sections:
    return Sections.model_validate({"verifier": {"deadline_s": 20}, **parts})


def prepared(out: Path, given: Sections) -> str:
    """What was said."""
    console = Console(width=200, stderr=True)
    with console.capture() as told:
        sets.prepare(given, out, console)
    return told.get()


def lines(file: Path, *problems: tuple[str, str]) -> str:
    file.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in problems))
    return str(file)


def test_what_is_odd_about_a_set_is_counted_and_nothing_is_left_out_silently(tmp_path: Path) -> None:
    # Given a training file, and a held-out one with a bad line, a repeated question and a gold answer of nothing
    train = lines(tmp_path / "train.jsonl", ("Two-digit sum: 12 + 30?", "42"), ("Tom has 3.", "3"), ("x", "1"))
    held = tmp_path / "held.jsonl"
    rest = [
        ("two digit SUM: 12+30 ?", "42"),
        ("Two-digit sum: 12 - 30?", "-18"),
        ("tom has 3", "3"),
        ("Tom has 3!", "3"),
    ]
    lines(held, *rest, ("what", "?!"), ("long", "9" * (MAX_ANSWER_CHARS + 1)))
    # When it is prepared
    told = prepared(tmp_path / "eval", settings(data={"train": train}, eval={"data": str(held)}))
    # Then all problems are kept, with their lines
    found = sets.read(tmp_path / "eval", "held")
    assert found.lines == [1, 2, 3, 4, 5] and [p.answer for p in found.problems] == ["42", "-18", "3", "3", "?!"]
    counts = {"problems": 5, "left_out": 1, "repeated": 1, "in_training": 3, "unreadable_golds": 1}
    assert found.about.items() >= counts.items()
    # And it is said
    assert "held: 1 lines are no problems and left out, the first is line 6: field 'answer'" in told
    assert "held: 1 questions repeat another one" in told
    assert "held: 1 gold answers cannot be read" in told
    assert "held: 3 of 5 questions are in data.train as well" in told


def test_generated_questions_are_compared_with_those_that_the_run_trains_on(tmp_path: Path) -> None:
    data = {"train": "reasoning-gym", "families": {"gcd": {}}}
    given = settings(run={"folder": str(tmp_path / "run")}, data=data, eval={"data": "reasoning-gym", "problems": 4})
    assert "not compared with the training data" in prepared(tmp_path / "eval", given)
    assert sets.read(tmp_path / "eval", "reasoning-gym").about["in_training"] is None, "no such run: unknown"
    held = sets.read(tmp_path / "eval", "reasoning-gym")
    (tmp_path / "run").mkdir()
    problem = held.problems[2]
    row = {"question": problem.question, "answer": problem.answer, "solution": None, "meta": problem.meta}
    (tmp_path / "run" / "prompts.jsonl").write_text(json.dumps(row) + "\n")
    assert "1 of 4 questions are in data.train" in prepared(tmp_path / "eval", given)


def test_a_missing_training_file_does_not_stop_an_evaluation(tmp_path: Path) -> None:
    held = lines(tmp_path / "held.jsonl", ("1 + 1?", "2"))
    told = prepared(tmp_path / "eval", settings(data={"train": "elsewhere.jsonl"}, eval={"data": held}))
    assert "not compared with the training data: there is no data file elsewhere.jsonl" in told


def test_a_folder_keeps_to_its_sets(tmp_path: Path) -> None:
    held = lines(tmp_path / "held.jsonl", ("1 + 1?", "2"))
    given = settings(eval={"data": held})
    prepared(tmp_path / "eval", given)
    prepared(tmp_path / "eval", given)
    lines(tmp_path / "held.jsonl", ("1 + 2?", "3"))
    with pytest.raises(RunFolderError, match="holds other problems under this name"):
        prepared(tmp_path / "eval", given)
    with pytest.raises(RunFolderError, match="no evaluation of ours"):
        prepared(tmp_path, given)
    (tmp_path / "held.jsonl").write_text("")
    with pytest.raises(DataError, match="has no usable line"):
        prepared(tmp_path / "new", given)


def test_completions_become_rows(tmp_path: Path) -> None:
    # Given a problem with its greedy completion and five samples, and one whose prompt was too long
    given = settings(
        eval={"data": lines(tmp_path / "held.jsonl", ("half of 1?", "1/2"), ("too long", "1")), "samples": 5}
    )
    prepared(tmp_path / "eval", given)
    held = sets.read(tmp_path / "eval", "held")
    texts = [r"\boxed{0.5}", r"\boxed{\frac12}", "the answer is 1/2", r"\boxed{2/3}", r"\boxed{\frac{4}{6}}", "no idea"]
    made = [[Completed(text, 7, "length" if text == "no idea" else "stop") for text in texts]]
    # When they are judged
    from common.progress import Bars

    with sandbox_of(given, "math") as sandbox, Bars(disable=True) as progress:
        [found] = sample._judged(sandbox, held, [0], made, progress)
    # Then equal answers vote together, however they are written, and what has none does not vote
    assert found["greedy"]["status"] == "correct" and "vote" not in found["greedy"]
    assert [one["status"] for one in found["samples"]] == ["correct", "correct", "wrong", "wrong", "no_answer"]
    assert [one["vote"] for one in found["samples"]] == [0, 0, 1, 1, None]
    assert found["samples"][4]["finish"] == "length" and found["samples"][4]["text"] == "no idea"


SAMPLES_A = [[i < 4, i < 6, i % 3 == 0, i < 2] for i in range(12)]
SAMPLES_B = [[i < 6, i < 9, i % 2 == 0, i < 8] for i in range(12)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    evaluated(tmp_path / "eval", "a", [i < 4 for i in range(12)], SAMPLES_A)
    evaluated(tmp_path / "eval", "b", [i < 9 for i in range(12)], SAMPLES_B)
    return tmp_path / "eval"


def test_the_figures_are_worked_out_again_from_the_rows(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--from", str(results), "--eval.k", "[2, 3]"]) == 0
    found = json.loads((results / "eval.json").read_text())
    for name, samples in (("a", SAMPLES_A), ("b", SAMPLES_B)):
        figures = found["models"][name]["sets"]["sums"]
        value = {one: figures["accuracy"][one]["value"] for one in figures["accuracy"]}
        assert list(value) == ["greedy", "pass@1", "pass@2", "pass@3", "maj@4"]
        assert value["pass@1"] == pytest.approx(np.mean(samples))
        pairs = [(own[i] or own[j]) for own in samples for i in range(4) for j in range(i + 1, 4)]
        assert value["pass@2"] == pytest.approx(np.mean(pairs))
        assert value["maj@4"] == pytest.approx(np.mean([0.5 if sum(o) == 2 else sum(o) > 2 for o in samples]))
        assert figures["statuses"]["samples"] == {"correct": np.sum(samples), "wrong": 48 - np.sum(samples)}
    by_figure = {line["figure"]: line for line in found["comparisons"]}
    assert by_figure["greedy"]["difference"] == pytest.approx(5 / 12) and by_figure["greedy"]["p"] == pytest.approx(
        2**-4
    )
    assert by_figure["pass@1"]["difference"] == pytest.approx(np.mean(SAMPLES_B) - np.mean(SAMPLES_A))
    assert (results / "eval.png").stat().st_size > 5_000
    told = capsys.readouterr().err
    assert "b - a" in told and "75.0 [" in told and "+41.7 [" in told


def test_of_several_sets_the_mean_is_told(results: Path) -> None:
    for model, right in (("a", 3), ("b", 5)):
        path = rows.path(results, model, "sums")
        evaluated(results / "other", model, [i < right for i in range(6)], [[True] * 4] * 6)
        other = json.loads(rows.path(results / "other", model, "sums").read_text().splitlines()[0])
        text = rows.path(results / "other", model, "sums").read_text().split("\n", 1)[1]
        path.with_name("more.jsonl").write_text(json.dumps(other | {"set": "more"}) + "\n" + text)
    found = run.conclude(results, rows.read_all(results), ())
    assert found["models"]["a"]["mean"]["greedy"]["value"] == pytest.approx((4 / 12 + 3 / 6) / 2)
    greedy = [line for line in found["comparisons"] if line["figure"] == "greedy"]
    assert [line["set"] for line in greedy] == ["sums", "more", None] or [line["set"] for line in greedy] == [
        "more", "sums", None,
    ]  # fmt: skip
    assert greedy[2]["difference"] == pytest.approx((5 / 12 + 2 / 6) / 2) and greedy[2]["problems"] == 18


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "which model?"),
        (["nowhere/at/all", "--data", "{held}"], 4, "there is no such folder"),
        (["{model}"], 2, "on what? give --data"),
        (
            ["{short}", "--data", "{held}"],
            2,
            "short has a context of 1024 tokens, actor.max_model_len = 2048: lower that",
        ),
        (["{model}", "--data", "{empty}"], 3, "has no usable line (0 bad): it is empty"),
        (["{model}", "--data", "{held}", "--eval.k", "[4]"], 2, "k = 4 is above samples = 1"),
        (["{model}", "again={model}", "--data", "{held}"], 2, "is given twice"),
        (["{model}", "--data", "{held}", "--out", "{run}"], 5, "no evaluation of ours"),
        (["--from", "{run}"], 3, "has no results"),
        (
            ["--from", "{results}", "--eval.temperature", "1"],
            2,
            "takes no model, no --data and no setting but --eval.k",
        ),
        (["--from", "{results}", "--eval.k", "[5]"], 2, "k = 5 is above samples = 4"),
    ],
)
def test_bad_input_is_told_with_its_remedy(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, says: str
) -> None:
    model, short, own = (tmp_path / name for name in ("model", "short", "run"))
    for folder, tokens in ((model, 4096), (short, 1024)):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"max_position_embeddings": tokens}))
        (folder / "model.safetensors").write_bytes(b"weights")
    own.mkdir()
    (own / "run.json").write_text("{}")
    held, empty = lines(tmp_path / "held.jsonl", ("1 + 1?", "2")), lines(tmp_path / "empty.jsonl")
    places = {"model": model, "short": short, "run": own, "results": results, "held": held, "empty": empty}
    given = [argument.format_map(places) for argument in arguments]
    out = [] if "--out" in given or "--from" in given else ["--out", str(tmp_path / "out")]
    assert main(["eval", *given, *out]) == code
    assert says in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("out/rows")), "nothing was started"


def test_results_under_other_settings_are_neither_kept_nor_lost(tmp_path: Path) -> None:
    # Given the results of a model whose weights have changed since
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    given = settings(eval={"data": f"sums={lines(tmp_path / 'held.jsonl', ('1 + 1?', '2'))}"})
    out, quiet = tmp_path / "eval", Console(quiet=True)
    prepared(out, given)
    assert rows.missing(given, out, {"m": model}, quiet) == {"m": ["sums"]}
    held = sets.read(out, "sums")
    done = rows.Result("m", "sums", str(model), "m@older", rows.asked(given, held), 1.0, [])
    rows.write(out, done)
    # Then it is evaluated once more
    assert rows.missing(given, out, {"m": model}, quiet) == {"m": ["sums"]}
    # Given results of these weights
    from common.models import identity

    rows.write(out, rows.Result(**{**vars(done), "identity": identity("m", model)}))
    # Then they are kept, and refused under other settings
    assert rows.missing(given, out, {"m": model}, quiet) == {"m": []}
    other = given.model_copy(update={"eval": given.eval.model_copy(update={"temperature": 0.6})})
    with pytest.raises(RunFolderError, match=r"made with other settings \(temperature 1.0 is now 0.6\)"):
        rows.missing(other, out, {"m": model}, quiet)
    assert rows.path(out, "m", "sums").is_file()


@pytest.mark.parametrize("text", ["", "{}\n", "no JSON\n", '{"asked": {"samples": 3}}\n'])
def test_a_file_that_holds_no_results(results: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows.path(results, "a", "sums").write_text(text)
    assert main(["eval", "--from", str(results)]) == 3
    assert "holds no results of `hero eval`" in capsys.readouterr().err
