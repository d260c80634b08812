"""The Kubernetes manifests: all overlays and components render, are valid, refer to what is there, and open no more."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests import custom_kinds
from tests.manifests import K8S, ROLES, ROOT, VARIANTS, Pod, named, objects, pods, selected

every = pytest.mark.parametrize("variant", VARIANTS)
OURS = ("hero-broker", "hero-tls", "hero-hub")
"""Secrets that deploy/README.md tells how to make."""


def references(pod: Pod) -> Iterator[tuple[str, str]]:
    """Kind and name of what a pod needs to be there."""
    for volume in pod.spec.get("volumes", []):
        for kind, key, field in (
            ("ConfigMap", "configMap", "name"),
            ("Secret", "secret", "secretName"),
            ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
        ):
            if key in volume:
                yield kind, volume[key][field]
    for variable in itertools.chain.from_iterable(c.get("env", []) for c in pod.containers):
        if secret := variable.get("valueFrom", {}).get("secretKeyRef"):
            yield "Secret", secret["name"]
    yield "ServiceAccount", pod.spec["serviceAccountName"]


@every
def test_the_cluster_takes_every_object(variant: str) -> None:
    found = objects(variant)
    assert len(found) > 20
    for one in found:
        custom_kinds.validate(one)


def test_every_component_is_in_a_variant() -> None:
    overlays = [yaml.safe_load((K8S / "overlays" / o / "kustomization.yaml").read_text()) for o in ("dev", "prod")]
    used = {path.rpartition("/")[2] for overlay in overlays for path in overlay["components"]}
    used |= {component for _, *components in VARIANTS.values() for component in components}
    assert used == {folder.name for folder in (K8S / "components").iterdir()}


@pytest.mark.parametrize("kind", ["Deployment", "NetworkPolicy", "ScaledObject", "TriggerAuthentication", "JobSet"])
def test_a_field_that_is_not_published_is_refused(kind: str) -> None:
    one = copy.deepcopy(objects("prod with a JobSet", kind)[0])
    one["spec"]["replica"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        custom_kinds.validate(one)


@every
def test_what_pods_refer_to_is_there(variant: str) -> None:
    there = {(one["kind"], one["metadata"]["name"]) for one in objects(variant)} | {("Secret", name) for name in OURS}
    for pod in pods(variant):
        assert set(references(pod)) <= there, pod.role
        mounted = {mount["name"] for c in pod.containers for mount in c.get("volumeMounts", [])}
        claimed = {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod.spec.get("volumes", [])} | claimed, pod.role


@every
def test_everything_is_in_one_namespace(variant: str) -> None:
    spaces = {one["metadata"].get("namespace") for one in objects(variant) if one["kind"] != "Namespace"}
    assert len(spaces) == 1 and None not in spaces


@every
def test_pods_may_do_little(variant: str) -> None:
    for pod in pods(variant):
        spec = pod.spec
        assert spec["automountServiceAccountToken"] is False and spec["enableServiceLinks"] is False, pod.role
        security = spec["securityContext"]
        assert security["runAsNonRoot"] and security["runAsUser"] == 10001
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }, container["name"]  # fmt: skip
            assert container["resources"]["requests"]["cpu"] and container["resources"]["limits"]["memory"]
            assert ":" in container["image"]
        for volume in spec.get("volumes", []):
            assert volume.keys() & {"configMap", "secret", "persistentVolumeClaim", "emptyDir"}, volume
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), volume


@every
def test_selectors_take_pods(variant: str) -> None:
    labels = [pod.labels for pod in pods(variant)]
    for one in objects(variant, "Service", "PodDisruptionBudget", "PodMonitor"):
        selector = one["spec"]["selector"]
        if one["kind"] == "Service":
            selector = {"matchLabels": {k: v for k, v in selector.items() if not k.startswith("batch.kubernetes.io/")}}
        assert any(selected(selector, found) for found in labels), one["metadata"]["name"]


def allowed(variant: str, source: str, target: str, port: int) -> bool:
    """Whether policies let pods of one component reach a port of another's: out of the one and into the other."""
    of = {pod.role: pod.labels for pod in pods(variant)}

    def opened(policy: dict[str, Any], way: str, peers: str, other: str) -> bool:
        for rule in policy["spec"].get(way, []):
            ports = [one["port"] for one in rule.get("ports", [])]
            if ports and port not in ports:
                continue
            inside = [p["podSelector"] for p in rule.get(peers, []) if p.keys() == {"podSelector"}]
            if any(selected(selector, of[other]) for selector in inside):
                return True
        return False

    policies = objects(variant, "NetworkPolicy")
    out = [p for p in policies if selected(p["spec"]["podSelector"], of[source])]
    into = [p for p in policies if selected(p["spec"]["podSelector"], of[target])]
    return any(opened(p, "egress", "to", target) for p in out) and any(
        opened(p, "ingress", "from", source) for p in into
    )


@every
def test_who_may_talk_to_whom(variant: str) -> None:
    roles = {pod.role for pod in pods(variant)}
    wanted = {(role, "broker", 6379) for role in ROLES}
    if "weights" in roles:
        wanted |= {(role, "weights", 6379) for role in ("learner", "actor")}
    if "reward-model" in roles:
        wanted |= {("scorer", "reward-model", 8000)}
    if "prometheus" in roles:
        wanted |= {("prometheus", role, 9100) for role in ROLES}
    if "sentinel" in roles:
        wanted |= {(role, "sentinel", 26379) for role in (*ROLES, "broker", "sentinel")}
        wanted |= {("broker", "broker", 6379), ("sentinel", "broker", 6379)}
    ports = (6379, 8000, 9100, 26379, 29500)
    if variant.startswith("prod"):  # several ranks, by ports that torch takes as it finds them
        wanted |= {("learner", "learner", port) for port in ports}
    assert {(a, b, p) for a in roles for b in roles for p in ports if allowed(variant, a, b, p)} == wanted


@every
def test_names_are_asked_of_the_cluster(variant: str) -> None:
    policy = named(variant, "NetworkPolicy", "hero-names-only")["spec"]
    assert policy["podSelector"] == {} and sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    [peer] = policy["egress"][0]["to"]
    cluster_dns = {"k8s-app": "kube-dns"}  # which has no label of ours
    assert selected(peer["podSelector"], cluster_dns) and peer["namespaceSelector"] == {}


def test_the_prod_overlay_has_gpus_and_scales() -> None:
    limits = {pod.role: pod.spec["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") for pod in pods("prod")}
    assert limits["learner"] and limits["actor"] and limits["reward-model"] and not limits["scorer"]
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in objects("prod", "ScaledObject")}
    assert scaled == {"hero-actor", "hero-scorer"}
    for name in scaled:
        assert "replicas" not in named("prod", "Deployment", name)["spec"]  # it would be set back by every apply


def test_rules_and_dashboard_are_those_of_the_monitoring_folder() -> None:
    data: dict[str, str] = {}
    for one in objects("dev", "ConfigMap"):
        data |= one["data"]
    for name in ("alerts.yml", "dashboard.json", "prometheus-by-name.yml"):
        assert data[name] == (ROOT / "deploy" / "monitoring" / name).read_text()


def test_a_job_set_has_the_jobs_own_spec() -> None:
    [job_set] = objects("prod with a JobSet", "JobSet")
    assert not objects("prod with a JobSet", "Job")
    copied = job_set["spec"]["replicatedJobs"][0]["template"]["spec"]
    own = named("prod", "Job", "hero-learner")["spec"]
    assert copied == own | {"backoffLimit": 0}
