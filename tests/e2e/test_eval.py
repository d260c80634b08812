"""`hero eval` as a user starts it, on a random policy: stopped in the middle, gone on with, worked out again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_models
from tests.e2e.running import ENVIRONMENT, POLL_S, all_gone, below

pytestmark = pytest.mark.timeout(900)

SAMPLES, MAX_TOKENS, CONTEXT = 2, 12, 112
LONG = 4000  # problems: they take seconds longer than this test may be kept from its turn
FAMILIES = '{"chain_sum": {"min_terms": 2, "max_terms": 2}}'


def started(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deploy.cli", "eval", *map(str, arguments)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HERO_")}
    with (folder / "output.txt").open("ab") as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment | ENVIRONMENT
        )


def read(file: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    header, *problems = map(json.loads, file.read_text().splitlines())
    return header, problems


def test_stopped_and_gone_on_with(tmp_path: Path) -> None:
    # Given a random policy, a short set with a prompt longer than its context, and a longer generated one
    policy = tiny_models.policy(tmp_path / "policy")
    questions = [*(f"{i} + {i} = ?" for i in range(7)), "x" * CONTEXT]
    rows = [json.dumps({"question": question, "answer": "7"}) for question in questions]
    (tmp_path / "short.jsonl").write_text("\n".join([*rows, "no JSON"]) + "\n")
    out = tmp_path / "eval"
    arguments = (
        f"tiny={policy}", "--data", tmp_path / "short.jsonl", "sums=reasoning-gym", "--out", out,
        "--data.families", FAMILIES, "--eval.problems", LONG, "--eval.samples", SAMPLES, "--eval.k", "[2]",
        "--eval.temperature", 0.8, "--eval.top_p", 0.95, "--eval.max_tokens", MAX_TOKENS,
        "--sampling.max_tokens", 16, "--data.max_prompt_tokens", 32,
        "--actor.max_model_len", CONTEXT, "--actor.kv_cache_gib", 0.1,
    )  # fmt: skip
    said = tmp_path / "output.txt"
    # When it is stopped after the first set
    process = started(tmp_path, *arguments)
    first, second = out / "rows" / "tiny" / "short.jsonl", out / "rows" / "tiny" / "sums.jsonl"
    deadline = time.monotonic() + 240
    while not first.is_file():
        assert process.poll() is None and time.monotonic() < deadline, said.read_text()
        time.sleep(POLL_S)
    children = below(process.pid)
    process.send_signal(signal.SIGTERM)
    # Then it leaves with what is finished, and no process stays
    assert process.wait(120) == 130, said.read_text()
    all_gone(children)
    assert not second.exists()
    assert "the same command goes on there" in said.read_text()
    kept = first.stat().st_mtime_ns
    # When the same command is given again
    assert started(tmp_path, *arguments).wait(300) == 0, said.read_text()
    # Then the first set was not evaluated anew
    assert first.stat().st_mtime_ns == kept
    # And every prompt has an answer, the one that is too long among the problems not solved
    for file, count in ((first, 8), (second, LONG)):
        header, problems = read(file)
        assert len(problems) == count and header["asked"]["temperature"] == 0.8
        answers = [one for row in problems for one in [row["greedy"], *row["samples"]] if one]
        assert len(answers) == (1 + SAMPLES) * (count - (file == first))
        assert all(1 <= one["tokens"] <= MAX_TOKENS for one in answers)
        assert all(
            (one["finish"] == "length") == (one["tokens"] == MAX_TOKENS) for one in answers if one["finish"] != "stop"
        )
    _, problems = read(first)
    assert problems[7]["greedy"] is None and problems[7]["samples"] == [] and problems[7]["prompt_tokens"] >= CONTEXT
    told = said.read_text()
    assert "1 of 8 prompts leave no room" in told and "1 lines are no problems and left out" in told
    # And the figures are those of the rows
    found = json.loads((out / "eval.json").read_text())["models"]["tiny"]
    for name, file in (("short", first), ("sums", second)):
        _, problems = read(file)
        right = [sum(one["status"] == "correct" for one in row["samples"]) for row in problems]
        value = {key: e["value"] for key, e in found["sets"][name]["accuracy"].items()}
        assert value["pass@1"] == pytest.approx(sum(right) / SAMPLES / len(problems))
        assert value["pass@2"] == pytest.approx(sum(c > 0 for c in right) / len(problems))
        assert value["greedy"] == sum((row["greedy"] or {}).get("status") == "correct" for row in problems) / len(
            problems
        )
    # When it is given once more, nothing is sampled
    before = {path: path.stat().st_mtime_ns for path in (out / "rows").rglob("*.jsonl")}
    assert started(tmp_path, *arguments).wait(180) == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "rows").rglob("*.jsonl")} == before
    # And under other settings the results are not mixed
    assert started(tmp_path, *arguments, "--eval.temperature", 0.5).wait(180) == 5
    assert "temperature 0.8 is now 0.5" in " ".join(said.read_text().split())


def test_models_of_one_shape_share_an_engine(tmp_path: Path) -> None:
    # Given two policies that differ in their weights, and one of another architecture
    policies = {name: tiny_models.policy(tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2))}
    policies["wide"] = tiny_models.policy(tmp_path / "wide", seed=1, intermediate_size=96)
    (tmp_path / "set.jsonl").write_text("".join(f'{{"question": "{i} + {i} = ?", "answer": "7"}}\n' for i in range(9)))
    common = (
        "--data", tmp_path / "set.jsonl", "--eval.samples", SAMPLES, "--eval.max_tokens", MAX_TOKENS,
        "--sampling.max_tokens", 16, "--data.max_prompt_tokens", 32,
        "--actor.max_model_len", CONTEXT, "--actor.kv_cache_gib", 0.1,
    )  # fmt: skip
    # When all are evaluated by one command, and each by its own
    together = [f"{name}={folder}" for name, folder in policies.items()]
    assert started(tmp_path, *together, "--out", tmp_path / "all", *common).wait(300) == 0
    for given in together[1:]:
        assert started(tmp_path, given, "--out", tmp_path / "alone" / given[:3], *common).wait(300) == 0
    # Then each said the same, and not what another said
    texts = {}
    for name in policies:
        header, problems = read(tmp_path / "all" / "rows" / name / "set.jsonl")
        assert header["folder"] == str(policies[name])
        texts[name] = [[one["text"] for one in [row["greedy"], *row["samples"]]] for row in problems]
        if name != "one":
            assert read(tmp_path / "alone" / name[:3] / "rows" / name / "set.jsonl")[1] == problems
    assert texts["one"] != texts["two"] and texts["two"] != texts["wide"]
