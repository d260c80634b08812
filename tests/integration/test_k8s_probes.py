"""Probes and scrapes of the Kubernetes manifests, asked of a process as it answers them."""

from __future__ import annotations

import re

import httpx

from common.settings import Sections
from common.streams import Broker
from common.vitals import Vitals
from tests.manifests import ROLES, VARIANTS, objects, pods


def test_probes_and_scrapes_ask_what_is_answered(broker: Broker) -> None:
    vitals = Vitals(Sections.model_validate({"metrics": {"port": 0}}), broker, "learner")
    paths = {
        end["path"]
        for one in objects("dev with a JobSet and a PodMonitor", "PodMonitor")
        for end in one["spec"]["podMetricsEndpoints"]
    }
    for pod in (pod for variant in VARIANTS for pod in pods(variant) if pod.role in ROLES):
        for name in ("startupProbe", "livenessProbe", "readinessProbe"):
            probe = pod.spec["containers"][0].get(name, {})
            if "httpGet" in probe:
                paths.add(probe["httpGet"]["path"])
            elif "exec" in probe:
                paths |= set(re.findall(r"http://127\.0\.0\.1:\d+(/\w*)", probe["exec"]["command"][-1]))
    assert len(paths) == 3
    for path in paths:
        assert httpx.get(f"{vitals.address}{path}", timeout=60).status_code != 404, path
