"""[eval]: sets in every notation, and what cannot be evaluated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common import config
from common.errors import ConfigError
from common.settings import EvalSettings


@pytest.mark.parametrize(
    ("data", "sets"),
    [
        ((), {}),
        ("", {}),
        ("data/gsm8k_test.jsonl.gz", {"gsm8k_test": "data/gsm8k_test.jsonl.gz"}),
        ("hub:openai/gsm8k", {"gsm8k": "hub:openai/gsm8k"}),
        ("easy=a.jsonl", {"easy": "a.jsonl"}),
        (["a b.jsonl", "x=reasoning-gym"], {"a-b": "a b.jsonl", "x": "reasoning-gym"}),
        ({"m": "math.jsonl", "h": {"source": "hub:a/b"}}, {"m": "math.jsonl", "h": "hub:a/b"}),
    ],
)
def test_one_set_several_or_a_table(data: Any, sets: dict[str, str]) -> None:
    found = EvalSettings(data=data, problems=5).sets
    assert {name: one.source for name, one in found.items()} == sets


def test_by_flag_and_by_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('[eval.data]\na = "a.jsonl"\nb = { source = "b.jsonl", question = "problem" }\n')
    settings = config.load(file)
    assert settings.eval.sets["b"].question == "problem"
    assert list(config.load(file, ['--eval.data=["c=c.jsonl"]']).eval.sets) == ["c"], "a list takes the table's place"
    assert list(config.load(file, ["--eval.data", "d.jsonl"]).eval.sets) == ["d"]
    assert config.load(Path("deploy/configs/quickstart.toml"), ["--eval.data="]).eval.sets == {}
    assert config.from_dump(config.dump(settings)).eval == settings.eval


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('data = ["a/x.jsonl", "b/x.jsonl"]', "two sets named 'x'; name them apart"),
        ('data = {"a b" = "x.jsonl"}', "names a set 'a b'"),
        ('data = {"../x" = "x.jsonl"}', "names a set '../x'"),
        ('data = {x = {source = ""}}', "data.x: source: String should have at least 1 character"),
        ('data = {x = {source = "a", qestion = "p"}}', "data.x: qestion: Extra inputs are not permitted"),
        ("data = {x = 3}", "a set is a source, or a table of source, question"),
        ("data = 3", "a list of sets or a table of them"),
        ('data = ["a", 3]', "a list of sets or a table of them"),
        ('data = "x.jsonl"\nsamples = 8\nk = [1, 16]', "k = 16 is above samples = 8"),
        ('data = "x.jsonl"\nproblems = 0', "greater than or equal to 1"),
        ('data = "reasoning-gym"\n[data]\nfamilies = {gcd = {}}', "eval.problems = None: eval.data has reasoning-gym"),
        ('data = "reasoning-gym"\nproblems = 9', "data.families = {}: eval.data has reasoning-gym"),
        ('data = "x.jsonl"\nmax_tokens = 2048', "eval.max_tokens = 2048: does not fit actor.max_model_len = 2048"),
    ],
)
def test_what_cannot_be_evaluated(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "my.toml").write_text(f"[eval]\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        config.load(tmp_path / "my.toml")
    assert says in str(caught.value) and "\n" not in str(caught.value), "one fault, one line"


def test_a_set_may_bring_its_own_families() -> None:
    own = {"source": "reasoning-gym", "families": {"gcd": {}}}
    assert EvalSettings(data={"gcd": own}, problems=3).sets["gcd"].families == {"gcd": {}}
