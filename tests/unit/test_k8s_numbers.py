"""Numbers in the Kubernetes manifests that the code or the settings decide: grace periods, thresholds, memory."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import actors.worker
import deploy.children
import learner.worker
import scorer.worker
from common import config
from common.lanes import GROUPS
from tests.manifests import ROLES, VARIANTS, objects, pods, run_toml

every = pytest.mark.parametrize("variant", VARIANTS)
DRAIN_S = {
    "learner": learner.worker.DRAIN_S,
    "actor": 2 * actors.worker.DRAIN_S,
    "scorer": max(scorer.worker.DRAIN_S, deploy.children.DRAIN_S),
}


@every
def test_grace_periods_are_longer_than_what_they_are_for(variant: str) -> None:
    for pod in pods(variant):
        if pod.role in ROLES:
            assert pod.spec["terminationGracePeriodSeconds"] > DRAIN_S[pod.role] + 10, pod.role


@every
def test_scaling_is_by_the_settings(variant: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(run_toml(variant))
    settings = config.load(file)
    each = {
        "hero-scorer": (settings.scorer.lag_each, settings.scorer.pending_each, "rollouts"),
        "hero-actor": (settings.actor.groups_in_flight, settings.actor.groups_in_flight, "tickets"),
    }
    for one in objects(variant, "ScaledObject"):
        lag, pending, stage = each[one["metadata"]["name"]]
        asked = [trigger["metadata"] for trigger in one["spec"]["triggers"]]
        streams = [f"{{{settings.run.id}}}:{name}" for name in (stage, stage, f"eval:{stage}")]
        assert [trigger["stream"] for trigger in asked] == streams
        for trigger in asked:
            assert trigger["consumerGroup"] == GROUPS[trigger["stream"].partition(":")[2]]  # type: ignore[index]
            host = (trigger.get("address") or trigger["addresses"]).partition(":")[0]
            service, space, _ = host.split(".")  # KEDA asks from a namespace of its own
            assert space == one["metadata"]["namespace"]
            assert service in {found["metadata"]["name"] for found in objects(variant, "Service")}
        assert [float(trigger.get("lagCount", 0)) for trigger in asked] == [lag, 0, lag]
        assert float(asked[1]["pendingEntriesCount"]) == pending
        assert one["spec"]["fallback"]["replicas"] >= 1
    if found := [one for one in objects(variant, "ScaledObject") if one["metadata"]["name"] == "hero-scorer"]:
        behavior = found[0]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] == settings.scorer.window_s
        assert found[0]["spec"]["minReplicaCount"] >= 1


@every
def test_memory_holds_what_the_servers_may_keep(variant: str) -> None:
    for pod in pods(variant):
        for container in pod.containers:
            if found := re.search(r"--maxmemory (\d+)gb", " ".join(container.get("args", []))):
                limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi"))
                assert limit > int(found[1]), pod.role
                assert "--maxmemory-policy noeviction" in container["args"]
