"""`hero sft` on a model's own samples and `hero rm` on a file of labelled completions, as commands."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_models

pytestmark = pytest.mark.timeout(900)

FAMILIES = "[data.families]\nchain_sum = { min_terms = 2, max_terms = 2, min_digits = 1, max_digits = 1 }\n"


def hero(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deploy.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tiny_models.policy(tmp_path / "base")


def test_a_cold_start_on_own_samples(base: Path, tmp_path: Path) -> None:
    # Given a random model, which ends few of its samples and gets none of them right
    config = tmp_path / "my.toml"
    config.write_text(
        f'[data]\ntrain = "reasoning-gym"\nmax_prompt_tokens = 96\n{FAMILIES}'
        "[actor]\nkv_cache_gib = 0.1\nmax_model_len = 128\n"
        "[sampling]\nmax_tokens = 16\n"
        f'[sft]\nbase = "{base}"\nout = "{tmp_path / "policy"}"\nsource = "samples"\nproblems = 12\nexamples = 20\n'
    )
    # When only right samples may be kept
    done = hero("sft", config)
    # Then none is, and it says why
    assert done.returncode == 3, done.stderr
    assert "none of 48 samples passes sft.filters" in " ".join(done.stderr.split())
    assert "not terminated" in done.stderr
    assert not (tmp_path / "policy").exists()
    # When no filter is set
    done = hero("sft", config, "--sft.filters", "[]", "--sft.completions", 2)
    # Then it is trained on as many as were asked for
    assert done.returncode == 0, done.stderr
    assert "cold start on 20 of 24 own samples; left out: more than needed 4" in " ".join(done.stderr.split())
    assert json.loads((tmp_path / "policy" / "sft.json").read_text())["examples"] == 20


def test_a_reward_model_from_a_file(base: Path, tmp_path: Path) -> None:
    # Given labelled completions, some of which are none
    rows = [
        {"question": f"{n}?", "completion": word, "correct": word == "yes"} for n in range(30) for word in ("yes", "no")
    ]
    labelled, other = tmp_path / "labelled.jsonl", tmp_path / "other.jsonl"
    bad = [{"question": "?", "completion": "yes"}, "[]", {"question": "?", "completion": 3, "correct": True}]
    labelled.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in [*rows, *bad]))
    other.write_text("\n".join(json.dumps(row) for row in rows[:10]))
    config, out = tmp_path / "my.toml", tmp_path / "rm"
    config.write_text(f'[model]\npolicy = "{base}"\n[rm]\ndata = "{labelled}"\nout = "{out}"\n')
    # When a reward model is trained on them
    done = hero(
        "rm", config, "--rm.further", f'["{other}"]', "--rm.epochs", 6, "--rm.lr", 3e-3, "--rm.batch_tokens", 256,
        "--rm.prompts", 24, "--rm.completions", 2,
    )  # fmt: skip
    # Then it is measured on what it has not seen, and what was left out is told
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "rm.json").read_text())
    assert found["pairs"] + found["quality"]["held out"]["completions"] == 48
    assert found["quality"]["held out"]["auroc"] == found["quality"]["other.jsonl"]["auroc"] == 1.0
    assert (out / "rm.png").stat().st_size > 10_000
    told = " ".join(done.stderr.split())
    assert "48 labelled completions of 24 problems, 50.0% right" in told
    assert "line 61 left out: field 'correct' is not true or false" in told
    assert "line 62 left out: not a JSON object" in told
    assert "line 63 left out: no text of at most" in told
    # And a file without any is refused before anything is trained
    done = hero("rm", config, "--rm.correct_field", "right")
    assert done.returncode == 3 and "rm.correct_field" in done.stderr
