"""Every command, flag, port, path, variable and number in the manifests exists in the code, and is the code's."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from torch.distributed.run import get_args_parser

import learner.worker
from common.settings import Sections
from tests.entrypoints import ENTRYPOINT, after_tini, hero, settings_of
from tests.manifests import ROLES, ROOT, VARIANTS, Pod, objects, pods, run_toml

every = pytest.mark.parametrize("variant", VARIANTS)


def words(container: dict[str, Any]) -> list[str]:
    return [*container.get("command", ENTRYPOINT), *container.get("args", [])]


def heroes(variant: str) -> Iterator[tuple[Pod, dict[str, Any]]]:
    """The containers that run `hero`."""
    for pod in pods(variant):
        for container in pod.containers:
            if container["image"].rpartition(":")[0].endswith("hero-rl") and "vllm" not in words(container):
                yield pod, container


def learners(variant: str) -> tuple[Pod, dict[str, Any]]:
    [found] = [(pod, c) for pod, c in heroes(variant) if hero(words(c))[0] == "learner"]
    return found


@every
def test_hero_takes_every_command(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for pod, container in heroes(variant):
        arguments = hero(words(container))
        settings = settings_of(arguments, run_toml(variant), tmp_path, monkeypatch)
        seen.add(arguments[0])
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts["/etc/hero"]["name"] == "run" and settings.run.id
        if arguments[0] in ROLES:
            assert arguments[0] == pod.role
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert settings.metrics.port == ports["metrics"] == 9100 and settings.metrics.host == "0.0.0.0"
        if pod.role == "learner":
            assert settings.run.folder.is_relative_to("/runs") and "/runs" in mounts
            assert settings.sft.out.is_relative_to("/runs") or not settings.model.policy.startswith("/")
    assert seen >= set(ROLES)


def test_a_flag_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = hero(words(learners("prod")[1]))
    with pytest.raises(AssertionError):
        settings_of([*found, "--metrics.prot", "1"], run_toml("prod"), tmp_path, monkeypatch)
    assert "metrics.prot" in capsys.readouterr().err


@every
def test_ranks_are_hosts_times_processes(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod, container = learners(variant)
    ranks = settings_of(hero(words(container)), run_toml(variant), tmp_path, monkeypatch).learner.ranks
    job = pod.owner["spec"]
    job = job["replicatedJobs"][0]["template"]["spec"] if pod.owner["kind"] == "JobSet" else job
    assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
    found = after_tini(words(container))
    if found[0] == "hero":
        assert ranks == job["completions"] == 1
        return
    launch = get_args_parser().parse_args([word.replace("$(NODE_RANK)", "1") for word in found[1:]])
    assert found[0] == "torchrun" and launch.no_python and launch.training_script == "hero"
    assert int(launch.nnodes) == job["completions"] and int(launch.nnodes) * int(launch.nproc_per_node) == ranks
    assert int(container["resources"]["limits"]["nvidia.com/gpu"]) == int(launch.nproc_per_node)
    assert launch.shutdown_timeout == learner.worker.DRAIN_S
    assert launch.node_rank == 1 and any(v["name"] == "NODE_RANK" for v in container["env"])
    assert launch.master_addr in {one["metadata"]["name"] for one in objects(variant, "Service")}


@every
def test_every_variable_is_read_by_somebody(variant: str) -> None:
    ours = "".join(file.read_text() for part in ("common", "scorer", "actors") for file in (ROOT / part).rglob("*.py"))
    package = Path(huggingface_hub.__file__).parent
    hub = "".join((package / name).read_text() for name in ("constants.py", "utils/_auth.py"))
    for _, container in heroes(variant):
        names = [one["name"] for one in container.get("env", [])]
        assert "OMP_NUM_THREADS" not in names or hero(words(container))[0] == "scorer"  # others read it from settings
        for variable in names:
            if variable.startswith("HERO_"):
                section, _, key = variable.removeprefix("HERO_").lower().partition("__")
                assert key in type(getattr(Sections(), section)).model_fields, variable
            elif variable == "NODE_RANK":
                assert f"$({variable})" in " ".join(container["args"])
            else:
                assert f'"{variable}"' in ours or f'"{variable}"' in hub, variable


@every
def test_scripts_are_told_what_they_read(variant: str) -> None:
    for pod in pods(variant):
        for container in pod.containers:
            if (command := container.get("command", [""]))[0] != "sh":
                continue
            [scripts] = [m["data"] for m in objects(variant, "ConfigMap") if Path(command[1]).name in m["data"]]
            text = scripts[Path(command[1]).name]
            assigned = set(re.findall(r"(?:^|\s)([a-z]+)=", text)) | set(re.findall(r"for (\w+) in", text))
            needed = set(re.findall(r"\$\{?(\w+)(?![\w:]|:-)", text)) - assigned
            assert needed == {one["name"] for one in container["env"]} - {"POD", "NAMESPACE"}, command


def test_the_interpreter_that_probes_use_can_do_what_they_ask() -> None:
    _, container = learners("prod")
    code = shlex.split(container["livenessProbe"]["exec"]["command"][2])[-1]
    compile(code, "probe", "exec")
    assert "http://127.0.0.1:9100/livez" in code and sys.version_info >= (3, 11)
