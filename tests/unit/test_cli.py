"""The `hero` command: every help teaches by example, every mistake is told with its remedy."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common import extras
from common.errors import ConfigError
from deploy.cli import main
from deploy.commands import COMMANDS

WORKERS = ["actor", "scorer", "learner"]


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "my.toml"
    file.write_text(
        f'[run]\nfolder = "{tmp_path}/run"\n[model]\npolicy = "{tmp_path}/policy"\n'
        '[data]\ntrain = "reasoning-gym"\nfamilies = {chain_sum = {}}\n'
    )
    return str(file)


def test_the_commands() -> None:
    assert " ".join(COMMANDS) == "up actor scorer learner sft rm eval score compare shadow top report queue doctor acl"


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_help_has_an_example(name: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, flag])
    text = capsys.readouterr().out
    assert left.value.code == 0
    assert f"examples:\n  hero {name} " in text
    for section in COMMANDS[name].sections:
        assert f"[{section}]" in text
        assert not re.search(rf"^\[{section}\].*:$", text, re.M), "cut off"


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["upp"], 2), (["--config"], 2), (["--help"], 0), (["-h"], 0)]
)
def test_without_a_command_all_are_listed(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == code
    told = capsys.readouterr().err
    assert "usage: hero COMMAND" in told and all(f"  {name} " in told for name in COMMANDS)


@pytest.mark.parametrize(
    "name",
    [name for name in COMMANDS if name not in ("eval", "score", "compare", "shadow", "top", "report", "queue", "acl")],
)
def test_a_missing_config(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "nowhere.toml"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("hero: there is no config file nowhere.toml") and "deploy/configs/" in told


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_without_a_broker(name: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, config, "--run.id", "r-1"]) == 6
    assert "give --broker.url or set REDIS_URL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--learner.lrr", "1"], "learner.lrr"),
        (["--reward.alpha", "0.95"], "alpha + beta = 1.05"),
        (["--sampling.completions", "1"], "set it to 2 or more"),
    ],
)
def test_bad_settings_are_told_before_anything_starts(
    flags: list[str], says: str, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["up", config, *flags]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_value_with_spaces_belongs_to_its_setting(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", "--data.families", '{"gcd": {"max_num": 9}}', config, "--dry-run"]) == 0
    assert '"max_num": 9' in capsys.readouterr().err


def test_an_unknown_reward_mode(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["up", config, "--rewards", "heroic"])
    told = capsys.readouterr().err
    assert left.value.code == 2 and "heroic" in told and "verifier" in told


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--metrics.tensorboard", "true"], "metrics.tensorboard = true needs tensorboard, which is not installed"),
        (["--metrics.wandb", "offline"], "pip install 'hero-rl[wandb]'"),
        (["--tracing.share", "0.01"], "pip install 'hero-rl[tracing]'"),
        (["--learner.lora_rank", "8"], "learner.lora_rank = 8 needs peft, which is not installed"),
    ],
)
@pytest.mark.parametrize("dry", [["--dry-run"], []])
def test_a_package_that_is_asked_for_and_missing_is_told_before_anything_starts(
    flags: list[str],
    says: str,
    dry: list[str],
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    assert main(["up", config, *flags, *dry]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_tells_too(
    name: str, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    assert main([name, config, "--run.id", "r-1", "--tracing.share", "1"]) == 2
    assert "tracing.share = 1 needs opentelemetry" in capsys.readouterr().err


def test_a_run_at_wandb_needs_its_key(config: str, tmp_path: Path) -> None:
    # In a process of its own: W&B keeps a key that it has seen
    none = {name: str(tmp_path / "none") for name in ("NETRC", "WANDB_CONFIG_DIR")}
    bare = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | none
    command = [sys.executable, "-m", "deploy.cli", "up", config, "--metrics.wandb", "online", "--dry-run"]

    def dry_run(**key: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=bare | key, capture_output=True, text=True, timeout=120, check=False)

    without = dry_run()
    assert without.returncode == 2 and "set WANDB_API_KEY or run `wandb login`" in without.stderr
    assert dry_run(WANDB_API_KEY="f" * 40).returncode == 0


def test_a_dry_run_prints_what_would_run(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["up", config, "--dry-run", "--rewards", "verifier", "--learner.lr", "2e-5"]) == 0
    told = capsys.readouterr().err
    assert '"mode": "verifier"' in told and '"lr": 2e-05' in told and "nothing was started" in told
    assert not (tmp_path / "run").exists()


def test_a_folder_of_its_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "made_by_its_last_run").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("made_by_its_last_run", "no_such_package.inner"):
        with pytest.raises(ConfigError, match=rf"a = 1 needs {module}, .*: pip install 'hero-rl\[more\]'"):
            extras.needs("a = 1", module, "more")
    extras.needs("a = 1", "rich.console", "more")
