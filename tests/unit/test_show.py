"""What people see of the evaluation beside training."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from common.settings import Sections
from deploy.show import closing_table, draw_curves, evaluation_line
from deploy.summary import summarize
from deploy.watch import Tail
from learner.json_lines import lines_by_step


def found(step: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    one = {"accuracy": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.03, "problems": 700}
    return {
        "step": step, **one, "sets": {"gsm8k": one}, "problems": 700, "given_up": 0, "samples": 4,
        "truncated_share": 0.125, "oldest_step": step, "newest_step": step + 2, "seconds": 9.0,
    } | changes  # fmt: skip


def test_a_round_in_one_line() -> None:
    assert evaluation_line(found(10, 0.612)) == (
        "evaluated at step 10: 61.2% [59.2, 64.2]  700 problems  policy of step 10 to 12  cut off 12.5%"
    )
    two = {"gsm8k": {"accuracy": 0.5}, "math": {"accuracy": 0.25}}
    line = evaluation_line(found(0, 0.375, sets=two, given_up=3, problems=1400, newest_step=0))
    assert line == (
        "evaluated at step 0: 37.5% [35.5, 40.5]  gsm8k 50.0%  math 25.0%  1,400 problems, 3 given up  "
        "policy of step 0  cut off 12.5%"
    )


def test_the_series_of_a_run_and_its_picture(tmp_path: Path) -> None:
    # Given a run whose round of step 5 was done again after a crash
    step = {
        "reward_mean": 0.5, "accuracy": 0.5, "staleness_mean": 1.0, "staleness_max": 1, "sampled_tokens": 9,
        "tickets": {"issued": 2, "trained": 2}, "drops": {},
    }  # fmt: skip
    metrics = [json.dumps({"step": n, "time": float(n), **step}) for n in (1, 2, 3)]
    rounds = [json.dumps({"step": n, "eval": found(n, a)}) for n, a in ((0, 0.4), (5, 0.1), (5, 0.6))]
    (tmp_path / "metrics.jsonl").write_text("\n".join(metrics) + "\n")
    settings = Sections.model_validate({"run": {"folder": tmp_path}})
    without = summarize(settings, "a", None, 1.0, 1e-5)
    assert without["evaluations"] == []
    (tmp_path / "eval.jsonl").write_text("\n".join(rounds) + "\n")
    summary = summarize(settings, "a", None, 1.0, 1e-5)
    assert [(one["step"], one["accuracy"]) for one in summary["evaluations"]] == [(0, 0.4), (5, 0.6)]
    for shown, told in ((without, False), (summary, True)):
        out = io.StringIO()
        Console(file=out, width=120).print(closing_table(shown))
        assert ("beside training, steps 0 to 5" in out.getvalue()) == told
        assert ("40.0% -> 60.0%  (2 rounds)" in out.getvalue()) == told
        draw_curves(lines_by_step(tmp_path / "metrics.jsonl"), shown, tmp_path / f"{told}.png")
    assert (tmp_path / "True.png").stat().st_size > (tmp_path / "False.png").stat().st_size > 10_000


def test_lines_are_told_when_they_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "eval.jsonl"
    tail = Tail(file)
    assert list(tail.new()) == []
    file.write_text('{"step": 1}\n{"st')
    assert [line["step"] for line in tail.new()] == [1]
    with file.open("a") as more:
        more.write('ep": 2}\n')
    assert [line["step"] for line in tail.new()] == [2] and list(Tail(file).new()) == []
