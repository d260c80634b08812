"""What the kustomizations render to, and questions about it: pods, containers, labels, settings."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import kustomize

ROOT = Path(__file__).parents[1]
K8S = ROOT / "deploy" / "k8s"
ROLES = ("learner", "actor", "scorer")
VARIANTS: dict[str, tuple[str, ...]] = {
    "dev": ("overlays/dev",),
    "prod": ("overlays/prod",),
    "dev with a JobSet and a PodMonitor": ("overlays/dev", "jobset", "podmonitor"),
    "prod with a JobSet": ("overlays/prod", "jobset"),
    "all that goes with Sentinel": ("base", "keda", "weights", "sentinel", "tls"),
}
"""A base, and components above it, in this order."""


@dataclass(frozen=True)
class Pod:
    owner: dict[str, Any]
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def role(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@functools.cache
def _rendered(variant: str) -> list[dict[str, Any]]:
    base, *components = VARIANTS[variant]
    if not components:
        return kustomize.build(K8S / base)
    with tempfile.TemporaryDirectory(dir=K8S, prefix=".test-") as folder:  # bases are named by relative paths
        lines = [
            "apiVersion: kustomize.config.k8s.io/v1beta1",
            "kind: Kustomization",
            f"namespace: {'hero-dev' if base == 'overlays/dev' else 'hero'}",
            f"resources: [../{base}]",
            f"components: [{', '.join(f'../components/{name}' for name in components)}]",
        ]
        if base == "base":
            (Path(folder) / "run.toml").write_text((K8S / "overlays" / "dev" / "run.toml").read_text())
            lines += [
                "configMapGenerator: [{name: hero-run, files: [run.toml]}]",
                "images: [{name: hero-rl, newTag: cpu}]",
            ]
        (Path(folder) / "kustomization.yaml").write_text("\n".join(lines))
        return kustomize.build(Path(folder))


def objects(variant: str, *kinds: str) -> list[dict[str, Any]]:
    """Of these kinds; of all without one."""
    return [found for found in _rendered(variant) if not kinds or found["kind"] in kinds]


def named(variant: str, kind: str, name: str) -> dict[str, Any]:
    [found] = [found for found in objects(variant, kind) if found["metadata"]["name"] == name]
    return found


def pods(variant: str) -> Iterator[Pod]:
    """Every pod template, of a JobSet's jobs too."""
    for owner in objects(variant, "Deployment", "StatefulSet", "Job", "JobSet"):
        jobs = owner["spec"].get("replicatedJobs")
        for template in [job["template"]["spec"]["template"] for job in jobs] if jobs else [owner["spec"]["template"]]:
            yield Pod(owner, template["metadata"]["labels"], template["spec"])


def selected(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector takes these labels."""
    by_expression = (
        labels.get(one["key"]) in one["values"] and one["operator"] == "In"
        for one in selector.get("matchExpressions", [])
    )
    return selector.get("matchLabels", {}).items() <= labels.items() and all(by_expression)


def run_toml(variant: str) -> str:
    """The settings that its pods are given."""
    [found] = [m for m in objects(variant, "ConfigMap") if m["metadata"]["name"].startswith("hero-run")]
    text: str = found["data"]["run.toml"]
    return text
