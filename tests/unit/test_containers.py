"""The container file and the compose file, as far as can be told without a container engine."""

from __future__ import annotations

import re
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from common.settings import Sections
from tests.entrypoints import CONTAINERFILE, ENTRYPOINT, hero, settings_of
from tests.manifests import ROLES, ROOT, VARIANTS, pods
from tests.unit.test_k8s_numbers import DRAIN_S

COMPOSE = ROOT / "deploy" / "container" / "compose.yml"
TEXT = CONTAINERFILE.read_text()
STAGES = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", TEXT, re.M | re.S))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def words(service: dict[str, Any]) -> list[str]:
    return [*service.get("entrypoint", ENTRYPOINT), *service.get("command", [])]


def test_the_container_file_is_free_of_known_mistakes() -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([str(hadolint), str(CONTAINERFILE)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_installs_what_the_project_names() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = set(re.findall(r"bash deploy/install\.sh ([a-z ]+)", TEXT)[0].split())
    wanted |= set(re.findall(r'-e "\.\[([a-z,]+)\]"', TEXT)[0].split(","))
    assert "gpu" in wanted and wanted <= extras.keys()
    for path in re.findall(r"(?:bash|COPY) (deploy/\S+)", TEXT):
        assert (ROOT / path).exists(), path


def test_what_is_run_has_no_root_no_compiler_for_cpus_and_no_secret() -> None:
    for target in ("cpu", "cuda"):
        users = re.findall(r"^USER (\S+)", STAGES["base"] + STAGES[target], re.M)
        assert users[-1] == "10001:10001"
        assert f"COPY --from=build-{target} /opt/hero-rl /opt/hero-rl" in STAGES[target]
    assert "gcc" not in STAGES["base"] + STAGES["cpu"]
    assert "OMP_NUM_THREADS" not in TEXT  # it would win over actor.threads
    assert not re.search(r"^(ARG|ENV).*(TOKEN|PASSWORD|SECRET|KEY)", TEXT, re.M | re.I)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored and kept == {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "actors",
        "common",
        "deploy",
        "learner",
        "scorer",
    }


def test_home_may_be_written_in_every_pod() -> None:
    [home] = re.findall(r"HOME=(\S+)", TEXT)
    for variant in VARIANTS:
        for pod in pods(variant):
            for container in pod.containers:
                if container["image"].rpartition(":")[0].endswith("hero-rl"):
                    assert home in {mount["mountPath"] for mount in container["volumeMounts"]}, pod.role


def test_the_compose_file_is_one(services: dict[str, Any]) -> None:
    whole = yaml.safe_load(COMPOSE.read_text())  # the parser knows no anchors
    assert sorted(PyCompose.from_yaml(yaml.safe_dump(whole)).service_names()) == sorted(services)
    whole["services"]["broker"]["imgae"] = "x"
    with pytest.raises(ValueError, match="imgae"):
        PyCompose.from_yaml(yaml.safe_dump(whole))


def test_the_compose_file_refers_to_what_is_there(services: dict[str, Any]) -> None:
    whole = yaml.safe_load(COMPOSE.read_text())
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= services.keys(), name
        assert set(service.get("networks", ())) <= whole["networks"].keys(), name
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert (COMPOSE.parent / volume["source"]).exists() and volume["read_only"], volume
            else:
                assert volume["source"] in whole["volumes"], volume
        if build := service.get("build"):
            assert (COMPOSE.parent / build["context"]).resolve() == ROOT
            assert ROOT / build["dockerfile"] == CONTAINERFILE and build["target"] in STAGES
        assert "privileged" not in service and service["cap_drop"] == ["ALL"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port
    assert whole["networks"]["run"] == {"internal": True}


def test_hero_takes_every_command_of_it(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Sections] = {}
    toml = (ROOT / "deploy" / "configs" / "quickstart.toml").read_text()
    for name, service in services.items():
        if service["image"] == "hero-rl:cpu":
            found[name] = settings_of(hero(words(service)), toml, tmp_path, monkeypatch)
    assert set(found) == {"policy", "reward-model", *(f"hero-{role}" for role in ROLES)}
    learner, actor, scorer = (found[f"hero-{role}"] for role in ROLES)
    assert learner.run.id == actor.run.id == scorer.run.id and learner.run.id
    assert (
        learner.model.policy == str(found["policy"].sft.out) == actor.model.policy == found["reward-model"].model.policy
    )
    assert learner.reward_model.model == str(found["reward-model"].rm.out) == scorer.reward_model.model
    assert {s.metrics.port for s in (learner, actor, scorer)} == {9100}
    for role in ROLES:
        grace = services[f"hero-{role}"]["stop_grace_period"]
        assert int(grace.removesuffix("s")) > DRAIN_S[role] + 10
        threads = {"OMP_NUM_THREADS": str(scorer.scorer.threads)} if role == "scorer" else {}
        assert services[f"hero-{role}"]["environment"] == {"REDIS_URL": "redis://broker:6379/0"} | threads


def test_prometheus_finds_the_services_by_name(services: dict[str, Any]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "monitoring" / "prometheus-by-name.yml").read_text())["scrape_configs"]
    named = {one["job_name"]: one["dns_sd_configs"][0] for one in scraped}
    assert set(named) == {f"hero-{role}" for role in ROLES} <= services.keys()
    for job, asked in named.items():
        assert asked["names"] == [job] and asked["port"] == 9100
    source = yaml.safe_load((COMPOSE.parent / "grafana" / "datasources" / "prometheus.yml").read_text())
    assert source["datasources"][0]["url"] == "http://prometheus:9090"
