"""Settings: what cannot work is refused at start with key, value and remedy; the later source wins."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from common import config
from common.errors import ConfigError
from common.settings import Sections

SHIPPED = sorted(Path("deploy/configs").glob("*.toml"))
OK = "[data]\nfamilies = {chain_sum = {}}\n[actor]\nmax_model_len = 2048\n"


@pytest.fixture(autouse=True)
def no_hero_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("HERO_"):
            monkeypatch.delenv(name)


def written(folder: Path, text: str, name: str = "my.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def refusal(folder: Path, text: str, *flags: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(written(folder, text), flags)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[learner]\nlrr = 1", ["learner.lrr: there is no such setting; did you mean lr?"]),
        ("[lerner]\nlr = 1", ["lerner: there is no such setting; did you mean learner?"]),
        ("[weights]\nzzz = 1", ["weights.zzz", "known here: folder, keep"]),
        ("seed = 1", ["seed: there is no such setting"]),
        ("[a]\nx = 1\n[b]\nx = 1", ["a: there", "b: there"]),
    ],
)
def test_an_unknown_key_is_refused_with_what_may_be_meant(tmp_path: Path, text: str, says: list[str]) -> None:
    message = refusal(tmp_path, text)
    assert all(part in message for part in says), message


@pytest.mark.parametrize(
    ("text", "key", "value", "remedy"),
    [
        ("[reward]\nalpha = 0.5\nbeta = 0.5", "reward", "alpha + beta = 1", "the paper uses 0.05 to 0.1"),
        ("[reward]\nalpha = -0.1", "reward.alpha", "-0.1", "greater than or equal to 0"),
        ("[reward]\nw_min = 4", "reward", "w_min = 4", "swap them"),
        ("[reward]\nmode = 'heroic'", "reward.mode", "'heroic'", "'hero', 'verifier', 'rm' or 'blend'"),
        ("[reward]\nk = nan", "reward.k", "nan", "finite"),
        ("[learner]\nlr = inf", "learner.lr", "inf", "finite"),
        ("[sampling]\ncompletions = 1", "sampling.completions", "1", "set it to 2 or more"),
        ("[sampling]\ncompletions = 0", "sampling.completions", "0", "greater than or equal to 1"),
        ("[sampling]\ntop_p = 0.9", "sampling", "top_p = 0.9", "set top_p = 1"),
        ("[sampling]\ntop_k = 50", "sampling", "top_k = 50", "top_k = 0"),
        ("[sampling]\ntemperature = 0", "sampling.temperature", "0", "greater than 0"),
        ("[sampling]\nmax_tokens = 4096", "sampling.max_tokens", "4096", "actor.max_model_len"),
        ("[data]\nmax_prompt_tokens = 2000", "data.max_prompt_tokens", "2000", "max_model_len >= their sum"),
        ("[tracing]\nendpoint = 'http://c:4318'", "tracing.share", "0", "set it to 0.01"),
        (
            "[tracing]\nendpoint = 'http://me:secret@c'\nshare = 1",
            "tracing",
            "a password",
            "set OTEL_EXPORTER_OTLP_HEADERS",
        ),
        ("[learner]\ndtype = 'bfloat16'\nzero_stage = 0", "learner", "zero_stage = 0", "use zero_stage = 1"),
        ("[learner]\nclip_high = 10", "learner", "clip_high = 10", "0.28"),
        ("[learner]\nobjective = 'cispo'", "learner", "correction = tis", 'set correction = "none"'),
        ("[learner]\nobjective = 'gspo'\nclip_high = 0.28", "learner", "0.28", "leave them unset"),
        ("[learner]\nclip_low = 1.5", "learner.clip_low", "1.5", "less than or equal to 1"),
        ("[learner]\ncorrection = 'vtrace'", "learner.correction", "'vtrace'", "'icepop' or 'decoupled'"),
        ("[learner]\nicepop_low = 6", "learner.icepop_low", "6", "less than or equal to 1"),
        ("[learner]\nmask_high = 0.5", "learner.mask_high", "0.5", "greater than or equal to 1"),
        ("[learner]\nkl_coefficient = -0.1", "learner.kl_coefficient", "-0.1", "greater than or equal to 0"),
        ("[learner]\nkl_estimator = 'k4'", "learner.kl_estimator", "'k4'", "'k1', 'k2' or 'k3'"),
        ("[learner]\nadvantage = 'gae'", "learner.advantage", "'gae'", "'centered'"),
        ("[learner]\nadvantage = 'gdpo'\n[reward]\nmode = 'verifier'", "learner.advantage", "gdpo", "take centered"),
        ("[learner]\nadvantage = 'papo'\n[reward]\nmode = 'verifier'", "learner.advantage", "papo", 'mode = "hero"'),
        ("[learner]\nmin_rm_auroc = 0.5\n[reward]\nmode = 'verifier'", "learner.min_rm_auroc", "0.5", "set it to 0"),
        ("[learner]\nmin_rm_auroc = 1.5", "learner.min_rm_auroc", "1.5", "less than or equal to 1"),
        ("[learner]\nverifier_weight = 0\nrm_weight = 0", "learner", "nothing to learn from", "set one above 0"),
        ("[learner]\ndensity_cap = 0.5", "learner.density_cap", "0.5", "greater than or equal to 1"),
        ("[reward]\nweighting = 'z'", "reward.weighting", "'z'", "'scale_free'"),
        ("[learner]\nmax_staleness = -1", "learner.max_staleness", "-1", "greater than or equal to 0"),
        ("[learner]\ngroups_per_step = 'many'", "learner.groups_per_step", "'many'", "integer"),
        ("[weights]\nkeep = 1", "weights.keep", "1", "greater than or equal to 2"),
        ("[scorer]\ncount = 3\nmost = 2", "scorer.most", "2", "is below scorer.count = 3"),
        ("[metrics]\nport = 70000", "metrics.port", "70000", "less than or equal to 65535"),
        ("[run]\nname = 'a/b'", "run.name", "'a/b'", "pattern"),
        ("[data]\ntrain = 'x.jsonl'\n[verifier]\nkind = 'task'", "verifier.kind", "task", 'use "math"'),
        ("[data]\ntrain = 'reasoning-gym'\nfamilies = {}", "data.families", "{}", "families = {chain_sum"),
    ],
)
def test_an_impossible_value_is_refused(tmp_path: Path, text: str, key: str, value: str, remedy: str) -> None:
    message = refusal(tmp_path, text if "[data]" in text else text + "\n[data]\nfamilies = {chain_sum = {}}")
    assert message.startswith(key) and value in message and remedy in message, message
    assert "\n" not in message, "one fault, one line"


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, OK + "[learner]\nlr = -1\n[reward]\nalpha = 2")
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("a.toml", "run = [", "is not TOML"), ("a.json", "{", "is not JSON"), ("a.toml", "\x00", "is not TOML")],
)
def test_a_file_that_is_no_settings_file(tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.load(written(tmp_path, text, name))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config file .*; deploy/configs/ has examples"):
        config.load(tmp_path / "nowhere.toml")


def test_flag_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, OK + "[learner]\nlr = 1e-1\ngroups_per_step = 11\nmini_steps = 3")
    monkeypatch.setenv("HERO_LEARNER__LR", "1e-2")
    monkeypatch.setenv("HERO_LEARNER__GROUPS_PER_STEP", "22")

    learner = config.load(file, ["--learner.lr", "1e-3"]).learner

    assert (learner.lr, learner.groups_per_step, learner.mini_steps) == (1e-3, 22, 3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("HERO_LEARNER__LRR", "learner.lrr: there is no such"),
        ("HERO_LERNER__LR", "HERO_LERNER__LR: there is no section 'lerner'"),
    ],
)
def test_an_unknown_variable_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str) -> None:
    monkeypatch.setenv(name, "1")
    assert says in refusal(tmp_path, OK)


@pytest.mark.parametrize("flags", [["--learner.lrr", "1"], ["--lr=1"], ["stray"]])
def test_an_unknown_flag_is_refused(tmp_path: Path, flags: list[str]) -> None:
    assert "hero COMMAND --help" in refusal(tmp_path, OK, *flags)


def test_flags_take_every_kind_of_value(tmp_path: Path) -> None:
    flags = ["--data.families", '{"gcd": {"max_num": 9}}', "--run.folder", "x y", "--actor.count=0"]
    flags += ["--weights.folder", "/w", "--learner.gradient_checkpointing", "true", "--reward.k", "-1.5"]
    s = config.load(written(tmp_path, OK), flags)
    assert s.data.families == {"chain_sum": {}, "gcd": {"max_num": 9}}, "maps are joined"
    assert (s.run.folder, s.weights.folder, s.actor.count) == (Path("x y"), Path("/w"), 0)
    assert s.learner.gradient_checkpointing and s.reward.k == -1.5


def test_resolved_settings_are_not_resolved_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child of `hero up` gets the resolved file and lives in the same environment."""
    resolved = config.load(written(tmp_path, OK), ["--learner.lr", "1e-3", "--weights.folder", "/w"])
    file = written(tmp_path, config.dump(resolved), "settings.json")
    monkeypatch.setenv("HERO_LEARNER__LR", "5")

    again = config.load(file, ["--run.id", "r-1"])

    assert again.learner.lr == 1e-3 and again.run.id == "r-1"
    assert again.model_dump(exclude={"run"}) == resolved.model_dump(exclude={"run"})


def test_dump_and_back(tmp_path: Path) -> None:
    settings = config.load(written(tmp_path, OK), ["--run.seed", "7", "--sft.max_seconds", "1.5"])
    assert config.from_dump(config.dump(settings)).model_dump() == settings.model_dump()


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_config_is_accepted(file: Path) -> None:
    settings = config.load(file)
    assert settings.run.steps > 0 and settings.model.policy, "a shipped config names its policy"


def test_help_describes_every_setting() -> None:
    text = config.describe(list(Sections.model_fields))
    for section, field in Sections.model_fields.items():
        model: Any = field.annotation
        assert f"[{section}]" in text
        for key in model.model_fields:
            assert f"--{section}.{key} " in f"{text}\n".replace("\n", " "), f"{section}.{key}"


def test_who_is_shown_the_settings_sees_no_address() -> None:
    shown = config.public(Sections())
    keys = {(name, key) for name, section in shown.items() for key in section}
    every = {(name, key) for name, section in Sections() for key in type(section).model_fields}
    assert {key for _, key in every - keys} <= {"url", "endpoint"}
    assert not [key for _, key in keys if re.search("url|endpoint|address|password|token$|secret|key$", key)]
