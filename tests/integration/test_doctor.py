"""`hero doctor` at real servers, models and folders: a good one is all ok, each fault is found with its remedy."""

from __future__ import annotations

import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from transformers import AutoTokenizer

from common import examiner
from common.server import LocalServer
from common.settings import Sections
from common.streams import Broker
from common.weights.definition import define
from common.weights.store import WeightStore
from deploy import acl, cli
from deploy.doctor.checks import CHECKS
from deploy.doctor.table import WIDTH
from learner import small_model
from tests import tiny_models
from tests.integration.guarded import Guarded
from tests.make import rollout, ticket
from tests.servers import Nodes, Servers, Watched, free_ports, settled

ROLES = ("learner", "actor", "scorer")
Found = dict[str, list[dict[str, str]]]
Doctor = Callable[..., tuple[int, Found]]


@pytest.fixture(autouse=True)
def no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.reward_model(tmp_path_factory.mktemp("judge"))


@pytest.fixture
def config(model: Path, judge: Path, tmp_path: Path) -> Path:
    rows = [{"question": f"{n} + 1 = ?", "answer": f"{n + 1}"} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "my.toml"
    file.write_text(
        f'[run]\nname = "ours-doctor"\nfolder = "{tmp_path}/run"\n[model]\npolicy = "{model}"\n'
        f'[data]\ntrain = "{tmp_path}/rows.jsonl"\nmax_prompt_tokens = 32\n[sampling]\nmax_tokens = 64\n'
        f"[actor]\nmax_model_len = 96\nkv_cache_gib = 0.1\n[scorer]\ncount = 1\n"
        f'[reward_model]\nmodel = "{judge}"\nmax_length = 128\n[learner]\nreward_log_mb = 1\n'
        f'[broker]\nmemory_mb = 64\n[eval]\ndata = "{tmp_path}/rows.jsonl"\n'
    )
    return file


@pytest.fixture
def doctor(config: Path, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def asked(only: str, *flags: str) -> tuple[int, Found]:
        """(exit code, findings by check)."""
        capsys.readouterr()
        code = cli.main(["doctor", str(config), "--json", "--only", only, *flags])
        told = json.loads(capsys.readouterr().out)
        assert told["exit_code"] == code and sum(told["counts"].values()) == len(told["findings"])
        found: Found = {}
        for one in told["findings"]:
            found.setdefault(one["check"], []).append(one)
            assert one["remedy"] or one["level"] in ("ok", "skipped"), one
        return code, found

    return asked


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[LocalServer]:
    """A server that is as it should be."""
    with LocalServer(tmp_path / "kept", memory_mb=256, append_only=True) as running:
        yield running


def levels(found: Found, *but: str) -> set[str]:
    return {one["level"] for check, all_of_it in found.items() if check not in but for one in all_of_it}


def test_a_good_machine_with_good_settings_and_no_broker_yet(doctor: Doctor, tmp_path: Path) -> None:
    code, found = doctor(",".join(CHECKS))
    assert code == 0
    assert levels(found, "host.memory", "host.cores") <= {"ok", "skipped"}, found  # a busy machine may lack memory now
    assert "`hero up` starts" in found["broker"][0]["found"]
    for check in (
        "policy.tokens",
        "policy.end",
        "policy.prompt",
        "reward_model",
        "data.train",
        "eval.data.rows",
        "python",
    ):
        assert found[check][0]["level"] == "ok", check
    assert not (tmp_path / "run").exists(), "it makes no run folder"


def test_a_good_broker_is_all_ok_and_untouched(doctor: Doctor, kept: LocalServer, run_id: str) -> None:
    broker = Broker(kept.url, run_id, "learner")
    broker.check()
    broker.issue(ticket(run_id, 0, incarnation=broker.take_over()))
    before = dump(broker._redis)
    code, found = doctor("broker,rights,broker_memory", "--broker.url", kept.url, "--run.id", run_id, "--strict")
    assert code == 0 and levels(found) == {"ok"}, found
    assert "learner, actor, scorer, shadow, viewer, queue" in found["rights"][0]["found"]
    assert dump(broker._redis) == before


def dump(client: Any) -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter()}


def test_the_table_says_the_same_in_80_columns(
    config: Path, capsys: pytest.CaptureFixture[str], kept: LocalServer
) -> None:
    kept_url = ["--broker.url", kept.url]
    assert cli.main(["doctor", str(config), "--only", "broker,ports,broker_memory", *kept_url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= WIDTH and re.match(
        r"\d+ findings: \d+ ok, \d+ skipped, 0 warnings, 0 errors", lines[-1]
    )
    assert any(line.startswith("ok       broker.eviction") for line in lines)


# The server


def test_a_server_that_evicts(doctor: Doctor, kept: LocalServer) -> None:
    redis.Redis.from_url(kept.url).config_set("maxmemory-policy", "allkeys-lru")
    code, found = doctor("broker", "--broker.url", kept.url)
    [fault] = found["broker.eviction"]
    assert code == 1 and "allkeys-lru" in fault["found"] and "CONFIG SET maxmemory-policy noeviction" in fault["remedy"]


def test_a_server_that_keeps_nothing(doctor: Doctor, tmp_path: Path) -> None:
    with LocalServer(tmp_path / "forgetful", memory_mb=64) as forgetful:
        code, found = doctor("broker", "--broker.url", forgetful.url)
        assert doctor("broker", "--broker.url", forgetful.url, "--strict")[0] == 1
    [fault] = found["broker.persistence"]
    assert code == 0 and fault["level"] == "warning" and "CONFIG SET appendonly yes" in fault["remedy"]


def test_a_server_that_cannot_write_its_snapshot(doctor: Doctor, servers: Servers, tmp_path: Path) -> None:
    [port] = free_ports(1)
    client = servers.start(port, "--save", "3600", "1")
    shutil.rmtree(tmp_path / "servers" / str(port))
    client.bgsave()
    settled(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "failed snapshot")
    code, found = doctor("broker", "--broker.url", f"redis://127.0.0.1:{port}")
    fault = found["broker.persistence"][0]
    assert code == 1 and fault["level"] == "error" and "MISCONF" in fault["found"]


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    made = Servers(tmp_path / "servers")
    yield made
    made.close()


def test_a_server_that_lets_in_who_comes_from_elsewhere(doctor: Doctor, servers: Servers) -> None:
    [port] = free_ports(1)
    arguments = ("--protected-mode", "no", "--maxmemory", "64mb")
    client = servers.start(port, *arguments)
    client.config_set("bind", "* -::*")
    _, found = doctor("broker", "--broker.url", f"redis://127.0.0.1:{port}")
    assert found["broker.password"][0]["level"] == "warning" and "hero acl" in found["broker.password"][0]["remedy"]
    client.config_set("requirepass", "s3cret")
    _, found = doctor("broker", "--broker.url", f"redis://:s3cret@127.0.0.1:{port}")
    assert found["broker.password"][0]["level"] == "ok" and "s3cret" not in json.dumps(found)


def test_a_server_that_is_too_small(doctor: Doctor, kept: LocalServer) -> None:
    client = redis.Redis.from_url(kept.url)
    for size, level, code in (("256mb", "ok", 0), ("20mb", "warning", 0), ("2mb", "error", 1)):
        client.config_set("maxmemory", size)
        found_code, found = doctor("broker_memory", "--broker.url", kept.url)
        [room] = found["broker.memory"]
        assert (room["level"], found_code) == (level, code), room
    assert "64 tickets in flight x 2 x" in room["found"] and "raise maxmemory" in room["remedy"]


def test_a_server_without_a_limit_grows_until_it_is_killed(doctor: Doctor, kept: LocalServer) -> None:
    redis.Redis.from_url(kept.url).config_set("maxmemory", "0")
    code, found = doctor("broker_memory", "--broker.url", kept.url)
    assert code == 0 and re.search(r"CONFIG SET maxmemory \d+mb", found["broker.maxmemory"][0]["remedy"])


def test_weights_that_have_no_room_beside_the_streams(doctor: Doctor, kept: LocalServer, tmp_path: Path) -> None:
    large = tiny_models.policy(tmp_path / "large")
    given = json.loads((large / "config.json").read_text()) | {"hidden_size": 4096, "num_hidden_layers": 32}
    (large / "config.json").write_text(json.dumps(given))
    flags = ("--model.policy", str(large), "--actor.weights_from", "broker", "--broker.url", kept.url)
    code, found = doctor("broker_memory", *flags)
    assert code == 1 and "weights.url" in found["weights.memory"][0]["remedy"]


def test_clocks_that_differ(doctor: Doctor, kept: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(examiner.time, "time", lambda: real() - 90)  # of this host alone
    code, found = doctor("broker", "--broker.url", kept.url)
    [skew] = found["broker.clock"]
    assert code == 0 and skew["level"] == "warning" and "NTP" in skew["remedy"]
    assert 60 < float(skew["found"].split(" s ahead of")[0]) < 120


def test_nobody_answers(doctor: Doctor, tmp_path: Path) -> None:
    [port] = free_ports(1)
    for url in (f"redis://:s3cret@127.0.0.1:{port}", f"unix://{tmp_path}/nobody.sock", "localhost:6379"):
        code, found = doctor("broker,rights,broker_memory", "--broker.url", url)
        [fault] = [one for one in found["broker"] if one["level"] == "error"]
        assert code == 1 and "s3cret" not in json.dumps(found)
        assert "REDIS_URL" in fault["remedy"] or "redis://host:6379/0" in fault["remedy"]


def test_a_worker_alone_needs_a_broker(doctor: Doctor) -> None:
    code, found = doctor("broker", "--role", "actor")
    assert code == 1 and "REDIS_URL" in found["broker"][0]["remedy"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", [Watched, Nodes])
def test_sentinels_and_clusters(
    kind: type[Watched | Nodes], doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.servers.DOWN_AFTER_MS", 60_000)  # nobody is to fail over
    several = kind(tmp_path / "several", 64)
    try:
        code, found = doctor("broker,rights,broker_memory", "--broker.url", several.url)
    finally:
        several.stop()
    assert code == 0 and "learner, actor, scorer" in found["rights"][0]["found"], found
    assert len([one for one in found["broker"] if one["level"] == "ok"]) == (1 if kind is Watched else 3)
    assert found["broker.replicas"][0]["level"] == "ok"


# Users and ways in


@pytest.mark.parametrize("role", ROLES)
def test_the_user_of_a_role_can_do_that_and_no_other(guarded: Guarded, doctor: Doctor, run_id: str, role: str) -> None:
    run_id = f"ours-{run_id}"
    learner, actor = (Broker(guarded.addresses[name], run_id, name) for name in ("learner", "actor"))
    learner.check()
    incarnation = learner.take_over()
    learner.issue_together([ticket(run_id, id, incarnation=incarnation) for id in range(2)])
    [order] = actor.read("tickets", 1, 100)
    actor.hand_over(order, rollout(order.ticket))
    before = dump(guarded.admin)
    own = ("--broker.url", guarded.addresses[role], "--run.id", run_id)
    for asked in ROLES:
        code, found = doctor("rights", "--role", asked, *own)
        able, *faults = found["rights"]
        assert f"user hero-{role} can do" in able["found"] and "harmless calls" in able["found"]
        assert role in able["found"].partition("work of: ")[2]
        if asked == role or role == "learner":
            assert code == 0 and faults == []
        else:
            assert code == 1 and f"hero-{asked}" in faults[0]["remedy"] and f"the {asked}'s work" in faults[0]["found"]
    code, found = doctor("rights", *own)
    assert code == (0 if role == "learner" else 1), "`hero up` comes with one user for all"
    assert dump(guarded.admin) == before, "and what it tried has changed nothing"
    guarded.admin.acl_log_reset()


def test_a_user_that_may_ask_by_dry_run(doctor: Doctor, servers: Servers) -> None:
    [port] = free_ports(1)
    client = servers.start(port, "--save", "")
    rules = [*re.findall(r"\([^)]*\)|\S+", acl.rights("ours-*")["actor"]), "+acl|whoami", "+acl|dryrun"]
    client.execute_command("ACL", "SETUSER", "me", "on", ">s3cret", *rules)
    for role, expected in (("actor", 0), ("scorer", 1)):
        url = f"redis://me:s3cret@127.0.0.1:{port}"
        code, found = doctor("rights", "--role", role, "--broker.url", url, "--run.id", "ours-1")
        assert (
            code == expected
            and "user me can do the work of: actor (found out by ACL DRYRUN)" in found["rights"][0]["found"]
        )
    assert found["rights"][1]["found"].startswith("user me cannot do the scorer's work: no ")
    assert client.acl_log() == [] and client.keys() == [], "nothing was tried"


def test_a_run_that_its_users_do_not_reach(guarded: Guarded, doctor: Doctor) -> None:
    code, found = doctor("rights", "--role", "actor", "--broker.url", guarded.addresses["actor"], "--run.id", "theirs")
    assert code == 1 and "no role" in found["rights"][0]["found"] and "run.id" in found["rights"][1]["remedy"]
    guarded.admin.acl_log_reset()


def test_who_comes_the_wrong_way(guarded: Guarded, doctor: Doctor) -> None:
    right = guarded.addresses["actor"]
    bare, _, _ = right.partition("?")
    _, password = re.findall(r"//(.*):(.*)@", right)[0]
    for url, says in (
        (right.replace(password, "guessed"), "set user and password in the URL"),
        (bare, "give the authority of its certificate"),
        (bare.replace("rediss://", "redis://"), "rediss:// with it"),
    ):
        code, found = doctor("broker", "--role", "actor", "--broker.url", url, "--run.id", "ours-1")
        assert code == 1 and says in found["broker"][0]["remedy"], found
        assert password not in json.dumps(found) and "guessed" not in json.dumps(found)
    code, found = doctor("broker", "--role", "actor", "--broker.url", right, "--run.id", "ours-1")
    assert code == 0 and "with TLS" in found["broker.tls"][0]["found"]
    guarded.admin.acl_log_reset()


# Models and data


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A policy to be spoiled."""
    return tiny_models.policy(tmp_path / "other")


def test_a_tokenizer_larger_than_the_embedding(doctor: Doctor, other: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["fortytwo"])
    tokenizer.save_pretrained(other)
    code, found = doctor("policy", "--model.policy", str(other))
    [fault] = found["policy.tokens"]
    assert code == 1 and "token id" in fault["found"] and "tokenizer that the model was trained with" in fault["remedy"]


def test_a_completion_that_nothing_ends(doctor: Doctor, other: Path) -> None:
    given = json.loads((other / "config.json").read_text()) | {"eos_token_id": 5000}
    (other / "config.json").write_text(json.dumps(given))
    code, found = doctor("policy", "--model.policy", str(other))
    assert code == 1 and found["policy.end"][0]["level"] == "error"


def test_a_template_that_refuses_the_system_prompt(doctor: Doctor, other: Path) -> None:
    refuses = "{{ raise_exception('no system role') if messages[0]['role'] == 'system' }}"
    (other / "chat_template.jinja").write_text(refuses + small_model.CHAT_TEMPLATE)
    code, found = doctor("policy", "--model.policy", str(other), "--data.system_prompt", "Be brief.")
    assert code == 1 and "system" in found["policy.prompt"][0]["found"]
    assert doctor("policy", "--model.policy", str(other))[0] == 0


def test_sequences_longer_than_the_model(doctor: Doctor) -> None:
    code, found = doctor("policy", "--actor.max_model_len", "4096")
    assert code == 1 and "actor.max_model_len = 128" in found["policy.positions"][0]["remedy"]


def test_a_policy_that_is_none(doctor: Doctor, tmp_path: Path, other: Path) -> None:
    code, found = doctor("policy,host,run_folder", "--model.policy", str(tmp_path / "nowhere"))
    assert code == 1 and "hero sft" in found["policy"][0]["remedy"]
    assert found["host.memory"][0]["level"] == found["run.folder.room"][0]["level"] == "skipped"
    for file in other.glob("*.safetensors"):
        file.unlink()
    code, found = doctor("policy", "--model.policy", str(other))
    assert code == 1 and "save_pretrained" in found["policy.weights"][0]["remedy"]


def test_code_that_came_with_a_model_is_not_run(doctor: Doctor, other: Path) -> None:
    (other / "mine.py").write_text("raise SystemExit(3)")
    given = json.loads((other / "config.json").read_text())
    given |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}
    (other / "config.json").write_text(json.dumps(given))
    code, found = doctor("policy", "--model.policy", str(other), "--model.trust_remote_code", "true")
    assert code == 0 and found["policy"][0]["level"] == "warning"
    assert doctor("policy", "--model.policy", str(other))[0] == 1


def test_an_actor_with_another_model_than_its_run(doctor: Doctor, kept: LocalServer, model: Path, other: Path) -> None:
    WeightStore(kept.url, "ours-1", "learner").define(define(Sections(), model))
    flags = ("--role", "actor", "--broker.url", kept.url, "--run.id", "ours-1")
    code, found = doctor("policy", *flags)
    assert code == 0 and found["policy.run"][0]["level"] == "ok"
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.add_special_tokens({"unk_token": "<|pad|>"})
    tokenizer.save_pretrained(other)
    code, found = doctor("policy", *flags, "--model.policy", str(other))
    assert code == 1 and "tokenizer" in found["policy.run"][0]["found"]


def test_a_reward_model_with_two_labels(doctor: Doctor, tmp_path: Path) -> None:
    two = tiny_models.reward_model(tmp_path / "two", num_labels=2)
    code, found = doctor("reward_model", "--reward_model.model", str(two))
    [fault] = found["reward_model"]
    assert code == 1 and "2 labels" in fault["found"] and "hero rm" in fault["remedy"]


def test_a_reward_model_that_no_chat_can_be_put_to(doctor: Doctor, tmp_path: Path) -> None:
    mute = tiny_models.reward_model(tmp_path / "mute", template=None)
    code, found = doctor("reward_model", "--reward_model.model", str(mute))
    assert code == 1 and "chat_template.jinja" in found["reward_model"][0]["remedy"]


def test_a_policy_as_the_likelihood_of_the_answer(doctor: Doctor, model: Path) -> None:
    flags = ("--reward_model.model", str(model), "--reward_model.backend", "likelihood")
    code, found = doctor("reward_model", *flags)
    assert code == 0 and "likelihood" in found["reward_model"][0]["found"]


def test_a_reward_model_behind_nobody(doctor: Doctor) -> None:
    [port] = free_ports(1)
    flags = ("--reward_model.backend", "http", "--reward_model.url", f"http://127.0.0.1:{port}")
    code, found = doctor("reward_model", *flags)
    assert code == 1 and "no answer" in found["reward_model"][0]["found"]


def test_rows_that_cannot_be_used(doctor: Doctor, config: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text() * 2 + "\n")
    bad = '{"question": "1 + 1 = ?"}\nnot JSON\n{"question": "' + "1 + " * 30 + '1 = ?", "answer": "31"}\n'
    rows.write_text(bad + rows.read_text())
    code, found = doctor("data")
    [train] = found["data.train"]
    assert code == 0 and train["level"] == "warning" and "3 of the first 22 rows" in train["found"], train
    assert "line 1: no field 'answer'" in train["found"] and "prompt too long" in train["found"]
    rows.write_text(bad)
    code, found = doctor("data", "--eval.data", "nowhere.jsonl")
    assert code == 1 and found["data.train"][0]["level"] == "error"
    assert "there is no data file" in found["eval.data.nowhere"][0]["found"]


# The machine


def test_a_port_that_is_in_use(doctor: Doctor) -> None:
    first = next(port for port in free_ports(20) if all(free(port + more) for more in range(3)))
    code, found = doctor("ports", "--metrics.port", str(first))
    assert code == 0 and f"{first} to {first + 2}" in found["metrics.port"][0]["found"]
    with socket.create_server(("127.0.0.1", first + 1)):
        code, found = doctor("ports", "--metrics.port", str(first))
    [fault] = found["metrics.port"]
    assert code == 1 and f"{first + 1} of 127.0.0.1: is in use" in fault["found"] and "metrics.port" in fault["remedy"]
    code, found = doctor("ports", "--metrics.port", "65535")
    assert code == 1 and "65533" in found["metrics.port"][0]["remedy"]


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_run_of_this_folder_is_still_going(doctor: Doctor, tmp_path: Path) -> None:
    with LocalServer(tmp_path / "run" / "broker", 64):
        code, found = doctor("ports")
    assert code == 1 and "another server already answers" in found["broker.socket"][0]["found"]


def test_a_run_folder_that_cannot_be_one(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder, says in (
        (tmp_path / "file", "cannot be used"),
        (tmp_path / "file" / "run", "cannot be written"),
        (Path("/proc/hero"), "cannot be written"),
        (tmp_path, "no run of ours"),
    ):
        code, found = doctor("run_folder", "--run.folder", str(folder))
        fault = found["run.folder"][0]
        assert code == 1 and says in fault["found"] and "folder" in fault["remedy"], fault


def test_a_weights_folder_that_is_not_mounted(doctor: Doctor, kept: LocalServer, tmp_path: Path) -> None:
    flags = ("--role", "actor", "--weights.folder", str(tmp_path / "theirs"), "--broker.url", kept.url)
    code, found = doctor("weights_folder", *flags)
    assert code == 0 and found["weights.folder"][0]["level"] == "warning"
    code, found = doctor("weights_folder", *flags, "--actor.weights_from", "folder")
    assert code == 1 and "mount" in found["weights.folder"][0]["remedy"]


def test_packages_of_versions_that_were_not_tried(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, version in (("msgpack", "0.6.2"), ("deepspeed", "0.10.0")):
        where = tmp_path / "site" / f"{name}-{version}.dist-info"
        where.mkdir(parents=True)
        (where / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    code, found = doctor("versions")
    said = [one["found"] for one in found["versions"]]
    assert code == 1 and any("msgpack is 0.6.2, hero-rl needs <2,>=1.1" in one for one in said), said
    assert any("deepspeed is 0.10.0" in one for one in said) and "install.sh" in found["versions"][0]["remedy"]
    code, found = doctor("versions", "--role", "actor")
    assert code == 1 and not any("deepspeed" in one["found"] for one in found["versions"]), "an actor has none"


# The command


def test_settings_that_are_refused(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", str(config), "--sampling.completions", "1"]) == 2
    assert "set it to 2 or more" in capsys.readouterr().err
    assert cli.main(["doctor", str(config), "--sampling.completions", "1", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["exit_code"] == 2 and "set it to 2 or more" in told["findings"][0]["found"]
    assert cli.main(["doctor", "--only", "brokers"]) == 2
    assert "there are broker, rights" in capsys.readouterr().err


def test_without_settings_it_says_so_and_looks_at_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json", "--only", "policy,reward_model,data,ports,host"]) == 0
    found = {one["check"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert {found[check]["level"] for check in ("policy", "reward_model", "data", "metrics.port")} == {"skipped"}
