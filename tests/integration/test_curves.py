"""The learner's curves, read back as TensorBoard and W&B read them; what fails there is no trouble of training's."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common import outbox
from common.settings import Sections
from common.streams import Broker
from learner.curves import Curves
from learner.json_lines import lines_by_step
from learner.ratio_bins import CLOSED_LOG2_EDGES
from tests import wandb_file
from tests.integration.learning import Bench, finish
from tests.integration.test_evaluation_lane import Answering, patient
from tests.integration.test_learner_worker import one_turn
from tests.small_disk import SmallDisk
from tests.until import until

PASSWORD = "open-sesame"


@pytest.fixture
def bench(broker: Broker, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in ("WANDB_PROJECT", "WANDB_NAME", "WANDB_ENTITY", "WANDB_MODE", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    held = tmp_path / "held.jsonl"
    held.write_text("".join(json.dumps({"question": f"{gold} = ?", "answer": str(gold)}) + "\n" for gold in range(3)))
    made = Bench(broker, model, tmp_path)
    made.evaluation = {"data": {"held": str(held)}, "every_steps": 2, "samples": 2, "max_tokens": 8}
    yield made
    made.close()


def read(folder: Path) -> EventAccumulator:
    """All of it, as TensorBoard has it after the steps that were done again."""
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    return found.Reload()


def steps_of(folder: Path, name: str) -> list[int]:
    found = read(folder)
    return [point.step for point in found.Scalars(name)] if name in found.Tags()["scalars"] else []


def crashed_after(bench: Bench, step: int, drawn: Any) -> None:
    """A learner that is gone at a step of which no checkpoint knows, once `drawn` has that step."""
    learner = patient(bench.learner(steps=9))
    learner.start()
    until(lambda: learner._step == step or learner._evaluate() or one_turn(learner), f"step {step}", seconds=120)
    until(drawn, f"step {step} drawn", seconds=120)


def test_event_files_have_every_step_once_whatever_was_done_again(bench: Bench) -> None:
    # Given a run whose learner went down at step 3, after its checkpoint of step 2
    bench.further = {"metrics": {"tensorboard": True}}
    bench.play(Answering)
    folder = bench.folder / "tensorboard"
    crashed_after(bench, 3, lambda: folder.is_dir() and 3 in steps_of(folder, "train/reward_mean"))
    # When another one goes on to step 5
    learner = patient(bench.learner(steps=5))
    finish(learner)
    learner._log._curves.close()
    # Then every number of the metrics log is drawn once, as its last line has it
    assert [line["step"] for line in bench.lines()] == [1, 2, 3, 3, 4, 5]
    lines, found = lines_by_step(bench.folder / "metrics.jsonl"), read(folder)
    drawn = {"train/reward_mean", "train/staleness_max", "seconds/step", "tickets/trained"}
    assert drawn <= set(found.Tags()["scalars"])
    for name in drawn:
        group, _, key = name.partition("/")
        wanted = [(line["step"], line["time"], line[key] if group == "train" else line[group][key]) for line in lines]
        points = [(point.step, point.wall_time, point.value) for point in found.Scalars(name)]
        assert points == [(step, time, pytest.approx(value, rel=1e-6)) for step, time, value in wanted]
    # And the histogram of the ratios, in its bins
    histograms = found.Histograms("train/ratio_log2")
    assert [one.step for one in histograms] == [1, 2, 3, 4, 5]
    for one, line in zip(histograms, lines, strict=True):
        assert one.histogram_value.bucket == line["ratio_histogram"] and one.histogram_value.num == line["tokens"]
        assert one.histogram_value.bucket_limit == list(CLOSED_LOG2_EDGES[1:])
    # And the evaluations, of which one was done twice
    rounds = lines_by_step(bench.folder / "eval.jsonl")
    assert [line["step"] for line in rounds] == [0, 2, 4, 5]
    assert sum(1 for _ in (bench.folder / "eval.jsonl").open()) == 5
    for name, key in (("eval/accuracy", "accuracy"), ("eval/seconds", "seconds")):
        points = [(point.step, point.value) for point in read(folder / "eval").Scalars(name)]
        assert points == [(line["step"], pytest.approx(line["eval"][key], rel=1e-6)) for line in rounds]
    assert "eval/sets/held/accuracy" in read(folder / "eval").Tags()["scalars"]


def test_event_files_tell_the_settings_without_any_address(bench: Bench) -> None:
    given = bench.settings(steps=1)
    given.metrics.tensorboard = True
    given.broker.url = given.weights.url = f"redis://user:{PASSWORD}@head:6379/0"
    curves = Curves(given, "run-1")
    curves.step({"step": 1, "time": 1.0, "reward_mean": 0.5})
    curves.close()
    [settings] = read(bench.folder / "tensorboard").Tensors("settings/text_summary")
    [told] = settings.tensor_proto.string_val
    assert b"learner.lr = 0.01" in told and b'run.folder = "' in told
    assert not any(PASSWORD.encode() in file.read_bytes() for file in bench.folder.rglob("*") if file.is_file())


def offline(bench: Bench) -> list[Path]:
    """What W&B wrote, oldest first."""
    return sorted((bench.folder / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda file: file.stat().st_mtime_ns)


def rows(bench: Bench) -> list[dict[str, Any]]:
    return [row for file in offline(bench) for row in wandb_file.rows(file)]


def test_wandb_has_every_step_once_whatever_was_done_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a run whose learner went down at step 3, after its checkpoint of step 2; its command line has a password
    monkeypatch.setattr(sys, "argv", ["hero", "learner", "--broker.url", f"redis://user:{PASSWORD}@head:6379/0"])
    bench.further = {"metrics": {"wandb": "offline", "wandb_project": "sums"}}
    bench.play(Answering)
    crashed_after(bench, 3, lambda: any(row.get("_step") == 2 for row in rows(bench)))
    bench.learners[-1]._log._curves.close()  # a killed one keeps all but its last second
    # When another one goes on to step 5
    learner = patient(bench.learner(steps=5))
    finish(learner)
    learner._log._curves.close()
    for key in ("_step", "eval/step"):  # its own process writes them
        until(lambda key=key: any(row.get(key) == 5 for row in rows(bench)), "last step")  # type: ignore[misc]
    # Then there are two files of one run, and together they have every step once, the first that was drawn
    runs = [record.run for file in offline(bench) for record in wandb_file.records(file) if record.HasField("run")]
    assert {(run.run_id, run.project, run.display_name) for run in runs} == {(bench.broker.run, "sums", "hero")}
    found, lines = rows(bench), {}
    for line in bench.lines():
        lines.setdefault(line["step"], line)
    assert [row["_step"] for row in found if "train/reward_mean" in row] == [1, 2, 3, 4, 5]
    for row in found:
        if "train/reward_mean" in row:
            line = lines[row["_step"]]
            assert row["train/accuracy"] == line["accuracy"] and row["seconds/step"] == line["seconds"]["step"]
            ratios = {key.rpartition("/")[2]: row[key] for key in row if key.startswith("train/ratio_log2")}
            histogram = ratios if "values" in ratios else row["train/ratio_log2"]
            assert histogram["values"] == line["ratio_histogram"]
            assert histogram["bins"] == pytest.approx(CLOSED_LOG2_EDGES)
    # And so with evaluation, over the steps that the rounds began at
    assert [row["eval/step"] for row in found if "eval/step" in row] == [0, 2, 4, 5]
    # And the settings, without addresses and command lines
    told = wandb_file.config(offline(bench)[0])
    assert told["learner"]["lr"] == 0.01 and "url" not in told["broker"]
    assert not any(PASSWORD.encode() in file.read_bytes() for file in bench.folder.rglob("*") if file.is_file())


def test_what_cannot_be_drawn_is_counted_and_training_goes_on(bench: Bench) -> None:
    # Given a folder of event files that cannot be made
    bench.further = {"metrics": {"tensorboard": True}}
    bench.evaluation = {}
    bench.play()
    bench.folder.mkdir()
    (bench.folder / "tensorboard").write_text("in its place")
    # Then the run ends as any other, it was said once, and counted
    with capture_logs() as said:
        books = finish(bench.learner(steps=4))
        bench.learners[0]._log._curves.close()
    assert books["trained"] == 8 and len(bench.lines()) == 4
    assert bench.learners[0]._log.untold == 4
    [first, last] = [line for line in said if line.get("to") == "TensorBoard's event files"]
    assert "File exists" in first["why"] and last["lost"] == 4


def test_a_disk_that_fills_up_costs_the_points_of_that_time(
    small_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a disk that is full for a while
    monkeypatch.setattr(outbox, "RETRY_S", 0.0)
    run = {"folder": str(small_disk.folder / "run")}
    curves = Curves(Sections.model_validate({"run": run, "metrics": {"tensorboard": True}}), "run-1")
    folder = small_disk.folder / "run" / "tensorboard"

    def line(step: int) -> dict[str, Any]:
        return {"step": step, "time": float(step), "reward_mean": step / 10, **{f"further_{n}": n for n in range(99)}}

    curves.step(line(1))
    until(lambda: folder.is_dir() and steps_of(folder, "train/reward_mean") == [1], "first step")
    small_disk.fill()
    for step in (2, 3):
        curves.step(line(step))
    until(lambda: curves.lost == 2, "loss")
    small_disk.free()
    curves.step(line(4))
    curves.close()
    # Then all else is there
    assert steps_of(folder, "train/further_98") == [1, 4] and set(steps_of(folder, "train/reward_mean")) >= {1, 4}


def test_a_wandb_that_never_answers_does_not_hold_the_learner_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Given W&B at an address where somebody listens and nobody speaks
    from learner import wandb_run

    monkeypatch.setattr(wandb_run, "INIT_S", 2.0)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
        bench.further, bench.evaluation = {"metrics": {"wandb": "online"}}, {}
        bench.play()
        with capture_logs() as said:
            books = finish(bench.learner(steps=3))
            assert books["trained"] == 6
            bench.learners[0]._log._curves.close()
    assert bench.learners[0]._log.untold == 3
    told = [line["event"] for line in said if line.get("to") == "W&B"]
    assert told[0].startswith("cannot be carried") and len(told) == 2


def test_nothing_is_loaded_that_is_not_asked_for(bench: Bench) -> None:
    import subprocess

    code = (
        "import sys; from common.settings import Sections; from learner.curves import Curves, check; "
        "check(Sections()); Curves(Sections(), 'r').step({'step': 1, 'time': 1.0}); "
        "print(sorted({'wandb', 'tensorboard', 'torch'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
