"""The parts of the report page: logs that still grow or are damaged, what is kept of them, curves, tables, errors."""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import ConfigError, RunFolderError
from deploy.cli import main
from deploy.report import lines as lines_module
from deploy.report import page as page_module
from deploy.report import settings_rows, tables
from deploy.report.command import recordings
from deploy.report.curves import curve, thinned, trailing_mean
from deploy.report.drawing import svg
from deploy.report.gathering import sections
from deploy.report.group_rows import TEXT_CHARS, row, slim
from deploy.report.kept import LATEST, RARE, SAMPLE, Kept
from deploy.report.lines import Lines
from deploy.report.page import page
from deploy.report.recording import Recording
from deploy.report.steps import Steps
from learner.json_lines import JsonLines
from tests.recording import Run


def line(id: int, step: int, statuses: tuple[str, ...] = ("correct", "wrong"), **changes: Any) -> dict[str, Any]:
    made = [
        {"text": f"text {id}", "status": status, "extracted": "1", "rule": None, "rm_score": 0.5, "r_hat": 0.1,
         "reward": 1.0 if status == "correct" else -0.5, "advantage": 0.1, "tokens": 3, "finish": "stop",
         "versions": [[1, 1, step - 2], [2, 1, step - 1]]}
        for status in statuses
    ]  # fmt: skip
    return {"id": id, "attempt": 1, "outcome": "trained", "step": step, "question": "?", "gold": "1", "mode": "hero",
            "reward_model": "rm@1", "sigma_u": 0.5, "sigma_bar": 0.5, "sigma_dev": None, "weight": 1.5, "gated": False,
            "completions": made} | changes  # fmt: skip


# Logs


def numbers(lines: Lines) -> list[int]:
    return [found["n"] for found in lines.new()]


def test_a_log_is_read_once_across_its_rotations(tmp_path: Path) -> None:
    # Given a log that rotates after a few lines, and a reader that looks now and then
    log, lines = JsonLines(tmp_path / "log.jsonl", limit_bytes=100, files=4), Lines(tmp_path / "log.jsonl")
    assert numbers(lines) == []
    seen: list[int] = []
    for n in range(60):
        log.write({"n": n})
        if n % 7 == 0:
            seen += numbers(lines)
    # Then it has had every line once
    assert seen + numbers(lines) == list(range(60)) and lines.bad_count == 0
    # A reader who comes late has what is still there; one who slept too long ends its own file and goes on with that
    assert numbers(Lines(tmp_path / "log.jsonl")) == list(range(60 - len(_held(tmp_path)), 60))
    for n in range(60, 160):
        log.write({"n": n})
    assert numbers(lines) == [60, *(json.loads(one)["n"] for one in _held(tmp_path))] and lines.unread_bytes == 0


def _held(folder: Path) -> list[str]:
    files = [*(folder / f"log.jsonl.{n}" for n in (3, 2, 1)), folder / "log.jsonl"]
    return [text for file in files for text in file.read_text().splitlines()]


def test_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    lines = Lines(file)
    file.write_text('{"n": 1}\n{"n"')
    assert numbers(lines) == [1] and lines.half_bytes == 4
    with file.open("a") as more:
        more.write(': 2}\n{"n": 3}\n')
    assert numbers(lines) == [2, 3] and lines.half_bytes == 0 and lines.bad_count == 0


def test_damaged_lines_are_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "LONGEST_BYTES", 64)
    file = tmp_path / "log.jsonl"
    bad = ["{", "[1]", "7", '{"n": ' + "9" * 5000 + "}", "\x00\x1b[2J", '"' + "x" * 200 + '"']
    file.write_bytes("\n".join(['{"n": 1}', *bad, '{"n": 2}', ""]).encode() + b'\xff\n{"n": 3}\n')
    lines = Lines(file)
    assert numbers(lines) == [1, 2, 3]
    assert lines.bad_count == 7 and len(lines.bad) == lines_module.NAMED
    assert lines.bad[0].startswith("log.jsonl, line 2: ") and "\x1b" not in "".join(lines.bad)


def test_a_long_log_takes_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "rewards"
    folder.mkdir(parents=True)
    with (folder / "rewards.jsonl").open("w") as out:
        for id in range(4000):
            out.write(json.dumps(line(id, id // 10 + 1, question="long " * 2000)) + "\n")
    found = Recording(tmp_path / "run")
    tracemalloc.start()
    found.look()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (folder / "rewards.jsonl").stat().st_size > 40e6 and peak < 12e6
    assert found.groups.count == 4000


# Numbers


def test_steps_that_are_done_again_replace_those_behind_them() -> None:
    steps = Steps()
    for step in (1, 2, 3, 4):
        steps.add({"step": step, "a": step, "seconds": {"step": 0.5, "forward": step}})
    steps.add({"step": 3, "a": 30, "b": 7})
    assert steps.steps.tolist() == [1, 2, 3] and steps.of("a").tolist() == [1, 2, 30] and steps.again == 2
    assert np.isnan(steps.of("b")[:2]).all() and steps.last("b") == 7
    assert steps.of("seconds.forward")[:2].tolist() == [1, 2] and steps.last("seconds.forward") is None
    assert np.isnan(steps.of("nothing")).all() and steps.last("nothing") is None


def test_what_is_no_number_is_left_out() -> None:
    steps = Steps()
    steps.add(
        {
            "step": 1,
            "nan": float("nan"),
            "huge": 10**400,
            "text": "1",
            "yes": True,
            "list": [1],
            "a": {"b": 2},
            "a.b": 3,
        }
    )
    steps.add({"step": "x", "c": 1})
    steps.add({"no": "step"})
    assert steps.names == ["a.b"] and len(steps) == 1
    for step in range(2, 300):
        steps.add({"step": step, f"name {step}": 1})
    assert len(steps.names) == 256 and steps.left_out > 0


def test_curves_are_as_fine_as_an_eye_needs() -> None:
    values = np.arange(10_000.0)
    assert trailing_mean(values, 3)[:4].tolist() == [0.0, 0.5, 1.0, 2.0]
    coarse = thinned(values, 300)
    assert len(coarse) == 300 and coarse.mean() == pytest.approx(values.mean(), rel=1e-3)
    made = curve("x", 0, values, np.where(values % 2, values, np.nan))
    assert made and made.smooth is not None and len(made.x) == len(made.y) == len(made.smooth) == 300
    assert made.ends == (20.0, 9980.0) and made.reach == (1.0, 9999.0)
    assert curve("x", 0, values, np.full(10_000, np.nan)) is None
    spiked = np.array([1e29] + [1.0] * 30)
    assert trailing_mean(spiked)[-1] == 1.0, "one huge value is not carried on"


# Groups


def test_the_latest_the_rare_and_a_sample_are_kept() -> None:
    kept = Kept()
    for id in range(5000):
        rare = id % 500 == 3
        kept.add(line(id, id // 10 + 1, ("timeout" if rare else "wrong", "wrong")))
    kept.add(line(5000, 501, outcome="dropped: stale"))
    chosen = [group["id"] for group in kept.chosen()]
    assert len(chosen) == len(set(chosen)) and chosen[:LATEST] == list(range(5000, 5000 - LATEST, -1))
    assert set(range(3, 5000, 500)) <= set(chosen), "all of what is rare"
    others = [id for id in chosen[LATEST:] if id % 500 != 3]
    assert SAMPLE * 0.9 <= len(others) <= SAMPLE and 1500 < np.mean(others) < 3500
    assert kept.outcomes == {"trained": 5000, "dropped: stale": 1}
    for id in range(100):
        kept.add(line(id, 502, ("error", "wrong")))
    assert len([g for g in kept._rare["error"].held]) == RARE


def test_rewards_by_verdict_are_of_the_last_time_that_a_step_was_done() -> None:
    kept = Kept()
    for id, step, statuses in (
        (0, 1, ("correct", "wrong")),
        (1, 2, ("wrong", "wrong")),
        (2, 3, ("correct", "correct")),
    ):
        kept.add(line(id, step, statuses))
    kept.add(line(3, 2, ("correct", "timeout")))
    kept.add(line(4, 2, ("correct", "correct"), outcome="dropped: stale"))
    found = kept.rewards()
    assert found.steps.tolist() == [1, 2]
    assert found.of("reward_right").tolist() == [1.0, 1.0] and found.of("reward_wrong").tolist() == [-0.5, -0.5]


@pytest.mark.parametrize(
    "damage",
    [
        {"completions": []}, {"completions": 3}, {"completions": [7]}, {"completions": [{"text": "no status"}]},
        {"step": None}, {"step": "3"}, {"completions": [{"status": 3}]},
    ],
)  # fmt: skip
def test_what_is_no_group_is_none(damage: dict[str, Any]) -> None:
    assert slim(line(1, 3) | damage) is None


def test_a_group_is_shortened_and_made_harmless() -> None:
    long = line(1, 3, question="q" * 100_000, gold="\u202e4", attempt="7", weight=float("inf"), mode="m" * 999)
    long["completions"][0] |= {"text": "a\x1b[2J\nb" + "x" * 99_999 + "END", "versions": "12", "extracted": None}
    group = slim(long)
    assert group is not None
    assert group["oldest"] == [1, 1] and group["newest"] == [1, 2]
    assert group["attempt"] is None and group["weight"] is None and len(group["mode"]) == 200
    shown = row(group)
    assert len(json.dumps(shown)) < TEXT_CHARS + 2000
    assert shown["gold"] == "\\u202e4" and shown["completions"][0]["text"].startswith("a\\x1b[2J\nb")
    assert shown["completions"][0]["text"].endswith("END") and shown["completions"][0]["extracted"] is None


# The page


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "runs" / "one", steps=30)
    made.step(20)
    return made


def look(run: Run) -> Recording:
    found = Recording(run.folder)
    found.look()
    return found


def test_the_plots_have_what_the_log_has(run: Run) -> None:
    run.evaluated()
    with (run.folder / "metrics.jsonl").open("a") as out:
        out.write('{"step": 21, "news": 1}\n{"step": 22, "news": 2}\n')
    found, still = sections([look(run)])
    titles = {plot.title for section in found for plot in section.plots}
    for title in (
        "Reward", "Reward by verdict", "Verifier accuracy of training samples", "HERO weight w",
        "Mean score of the reward model", "Groups by the verdicts in them", "Statuses of the verifier",
        "Entropy, in nats", "Loss", "Seconds of a step by phase", "Tokens a second in the learner's step",
        "Held-out accuracy beside training, 95 % intervals",
    ):  # fmt: skip
        assert title in titles, title
    assert ["Gradient norm", "0.1"] in still and "Gradient norm" not in titles
    named = [section.title for section in found]
    assert named[0] == "Held-out accuracy" and named[-1] == "Further numbers"
    statuses = next(plot for section in found for plot in section.plots if plot.title.startswith("Statuses"))
    assert [one.label for one in statuses.curves][:2] == ["correct", "wrong"]
    assert sum(one.y for one in statuses.curves)[:20] == pytest.approx(np.ones(20))


def test_a_plot_is_small_has_names_and_no_styles(run: Run) -> None:
    found, _ = sections([look(run)])
    drawn = [str(svg(plot, f"p{n}-")) for n, plot in enumerate(found[0].plots)]
    for text in drawn:
        assert "style" not in text and "#010203" not in text and "currentColor" in text and len(text) < 30_000
        assert "<title>" in text and re.search(r'role="img" aria-label="[^"]+: first ', text)
    ids = re.findall(r'\bid="([^"]+)"', "".join(drawn))
    assert len(ids) == len(set(ids))
    assert svg(found[0].plots[0], "p0-") == drawn[0], "the same plot is the same text"


def test_the_tables_have_numbers_of_the_run(run: Run) -> None:
    run.evaluated()
    run.step(10)
    run.finish()
    rows = {name: value for name, value in tables.outcomes([look(run)])}
    assert rows["held-out greedy, %"].startswith("25.0 [") and "(+50.0 points [" in rows["held-out greedy, %"]
    assert (
        rows["held-out accuracy beside training, %"]
        == "30.0 [25.0, 35.0] at step 0 \u2192 50.0 [45.0, 55.0] at step 20, 3 rounds"
    )
    assert rows["tickets"] == "63 issued = 60 trained + 3 dropped + 0 dead lettered + 0 in flight"
    assert rows["dropped because"] == "stale 3" and rows["staleness in steps"] == "mean 1.00, at most 1"
    facts = {name: value for name, value in tables.facts([look(run)])}
    assert facts["state"] == "finished: 30 of 30 steps" and facts["run"] == run.id


def test_settings_are_compared_and_no_password_is_shown(tmp_path: Path) -> None:
    secret = {"url": "redis://user:hunter2@head:6379/0"}
    runs = [Run(tmp_path / "a", weights=secret), Run(tmp_path / "b", learner={"lr": 3e-5}, weights=secret)]
    held = [look(one) for one in runs]
    differing = {name: rest for name, *rest in settings_rows.differing(held)}
    assert differing["learner.lr"] == ["5e-05", "5e-05", "3e-05"] and "learner.clip_low" not in differing
    assert "weights.url" not in differing
    changed = {name: rest for name, *rest in settings_rows.changed(held)}
    assert changed["weights.url"] == ["-", *["redis://user:***@head:6379/0"] * 2]
    assert "hunter2" not in page(held)


def test_a_run_without_anything_yet_has_a_page(tmp_path: Path) -> None:
    text = page([look(Run(tmp_path / "new"))])
    assert "There is no step yet." in text and "no step yet" in text and "has no group yet" in text


def test_a_learner_that_was_started_by_hand_is_finished_with_its_steps(run: Run) -> None:
    marker = json.loads((run.folder / "run.json").read_text())
    marker["identity"]["run.steps"] = 20
    (run.folder / "run.json").write_text(json.dumps(marker))
    assert not look(run).finished
    (run.folder / "settings.json").unlink()
    found = look(run)
    assert found.finished and found.settings["reward.mode"] == "hero"


def test_what_is_damaged_is_said_on_the_page(run: Run) -> None:
    with (run.folder / "metrics.jsonl").open("a") as out:
        out.write('nonsense <b>\n{"step": 21')
    (run.folder / "summary.json").write_text("[")
    (run.folder / "rewards" / "rewards.jsonl").open("a").write('{"completions": 0}\n')
    text = page([look(run)])
    for words in (
        "1 damaged lines of metrics.jsonl",
        "line 21: ",
        "not whole yet (11 bytes)",
        "summary.json could not be read",
        "1 objects in rewards/rewards.jsonl are no groups",
    ):
        assert words in text, words


def test_hostile_names_and_numbers_are_only_text(tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=alert(1)>\x1b[2J\u202e$\\frac$"
    run = Run(tmp_path / "one")
    run.step(3)
    with (run.folder / "metrics.jsonl").open("a") as out:
        for step in (4, 5):
            out.write(
                json.dumps({"step": step, f"status_{bad}": step, f"x{bad}": step, "reward_mean": 1e29 * step}) + "\n"
            )
    (run.folder / "run.json").write_text(json.dumps({"id": bad, "identity": {bad: bad}}))
    (run.folder / "settings.json").write_text(json.dumps({bad: {bad: bad}}))
    (run.folder / "eval").mkdir()
    (run.folder / "eval" / "eval.json").write_text(
        json.dumps({"models": {"after": {"sets": {bad: {"accuracy": {bad: {"value": 1}}}}}}})
    )
    text = page([look(run)])
    assert "<img" not in text and "\x1b" not in text and "\u202e" not in text and text.count("</script>") == 3


def test_the_page_stays_small_and_says_what_it_leaves_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "GROUPS_BYTES", 10_000)
    text = page([look(run)])
    said = re.search(r"(\d+) of 42 groups of the reward log \(40 trained, 2 dropped: stale\)", text)
    assert said and 0 < int(said[1]) < 42 and f"{42 - int(said[1])} are left out" in text
    assert text.count('"completions":') == int(said[1])


# The command


def test_the_newest_run_is_taken_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report"]) == 5
    assert f"there is none below {tmp_path}/runs" in capsys.readouterr().err
    for name, written in (("a/hero", 2000), ("b", 1000)):
        made = Run(tmp_path / "runs" / name)
        made.step(2)
        for file in ("run.json", "metrics.jsonl"):
            os.utime(made.folder / file, (written, written))
    assert main(["report"]) == 0
    assert "run runs/a/hero, the newest of 2 below runs" in capsys.readouterr().err
    assert (tmp_path / "runs/a/hero/report.html").stat().st_size < 2e6


def test_mistakes_are_told_with_their_remedy(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, words in (
        (["nowhere"], 5, "there is no folder nowhere: give the folder of a run"),
        ([str(tmp_path)], 5, f"nor rewards/rewards.jsonl); below it there are {run.folder}"),
        ([str(run.folder), str(run.folder)], 2, "is given twice"),
        ([str(run.folder), "--every", "0"], 2, "give 1 second or more"),
        ([str(run.folder), "--fast"], 2, "--fast: there is no such flag"),
        ([str(run.folder), "--out", f"{tmp_path}/no/where.html"], 5, "give another file by --out"),
    ):  # fmt: skip
        assert main(["report", *arguments]) == code
        assert words in " ".join(capsys.readouterr().err.split()), words


def test_runs_get_names_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a/run", "b/run", "c/a/run")]
    for folder in folders:
        Run(folder)
    names = [one.name for one in recordings(folders)]
    assert names == ["a-run (1)", "b-run", "a-run (3)"]
    with pytest.raises(ConfigError, match="more than a plot can tell apart"):
        recordings(folders * 20)
    with pytest.raises(RunFolderError):
        recordings([tmp_path / "a"])
