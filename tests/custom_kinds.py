"""Fields of the custom kinds that the manifests use, as their projects publish them: what is not listed is refused.

KEDA 2.18: its reference of ScaledObject and TriggerAuthentication, and for triggers the names that its Redis scalers
read from metadata and from authentication. JobSet v1alpha2 (api/jobset/v1alpha2/jobset_types.go). Prometheus operator,
monitoring.coreos.com/v1 (podmonitor_types.go and the API reference of PrometheusRule). Most names of spec and its lists
are here, of deeper objects those in use.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate

KUBERNETES = "1.31"
"""Whose schemas the built-in kinds are held against."""

TEXT, NUMBER, BOOL, ANY = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}, dict[str, Any]()


def _closed(required: str = "", **fields: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "required": required.split(), "properties": fields}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": of}


_TEXTS = {"type": "object", "additionalProperties": TEXT}
_COUNT = {"type": "string", "pattern": "^[0-9]+$"}
_LOGIN = {name: TEXT for name in ("username", "password", "sentinelUsername", "sentinelPassword", "sentinelMaster")}
_STREAM = _closed(
    "stream",
    **{name: TEXT for name in ("address", "addresses", "host", "hosts", "port", "ports", "stream", "consumerGroup")},
    **{
        name: _COUNT
        for name in ("pendingEntriesCount", "streamLength", "lagCount", "activationLagCount", "databaseIndex")
    },
    **{name: {"enum": ["true", "false"]} for name in ("enableTLS", "unsafeSsl")},
    **{name: TEXT for name in ("usernameFromEnv", "passwordFromEnv", "addressFromEnv", "addressesFromEnv")},
    **_LOGIN,
)
_PARAMETERS = [
    *_LOGIN,
    "address",
    "addresses",
    "host",
    "hosts",
    "port",
    "ports",
    "tls",
    "ca",
    "cert",
    "key",
    "keyPassword",
]
_RELABEL = _closed(
    sourceLabels=_list(TEXT),
    separator=TEXT,
    targetLabel=TEXT,
    regex=TEXT,
    modulus=NUMBER,
    replacement=TEXT,
    action=TEXT,
)
SCALED_OBJECT = _closed(
    "scaleTargetRef triggers",
    scaleTargetRef=_closed("name", apiVersion=TEXT, kind=TEXT, name=TEXT, envSourceContainerName=TEXT),
    pollingInterval=NUMBER,
    cooldownPeriod=NUMBER,
    initialCooldownPeriod=NUMBER,
    idleReplicaCount=NUMBER,
    minReplicaCount=NUMBER,
    maxReplicaCount=NUMBER,
    fallback=_closed(
        "failureThreshold replicas",
        failureThreshold=NUMBER,
        replicas=NUMBER,
        behavior={"enum": ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"]},
    ),
    advanced=_closed(
        restoreToOriginalReplicaCount=BOOL,
        scalingModifiers=ANY,
        horizontalPodAutoscalerConfig=_closed(
            name=TEXT, behavior=_closed(scaleDown=_closed(stabilizationWindowSeconds=NUMBER), scaleUp=ANY)
        ),
    ),
    triggers=_list(
        _closed(
            "type metadata",
            type={"enum": ["redis-streams", "redis-sentinel-streams", "redis-cluster-streams"]},
            metadata=_STREAM,
            name=TEXT,
            useCachedMetrics=BOOL,
            authenticationRef=_closed("name", name=TEXT, kind=TEXT),
            metricType={"enum": ["AverageValue", "Value"]},
        )
    ),
)
TRIGGER_AUTHENTICATION = _closed(
    secretTargetRef=_list(_closed("parameter name key", parameter={"enum": _PARAMETERS}, name=TEXT, key=TEXT)),
    **{name: ANY for name in ("configMapTargetRef", "env", "podIdentity", "hashiCorpVault", "azureKeyVault")},
    **{name: ANY for name in ("gcpSecretManager", "awsSecretManager")},
)
JOB_SET = _closed(
    "replicatedJobs",
    replicatedJobs=_list(
        _closed("name template", name=TEXT, groupName=TEXT, template=ANY, replicas=NUMBER, dependsOn=ANY)
    ),
    failurePolicy=_closed(
        maxRestarts=NUMBER,
        restartStrategy={"enum": ["Recreate", "BlockingRecreate", "InPlaceRestart"]},
        rules=_list(
            _closed(
                "name action",
                name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts", "RestartJob"]},
                onJobFailureReasons=_list(TEXT),
                onJobFailureMessagePatterns=_list(TEXT),
                targetReplicatedJobs=_list(TEXT),
            )
        ),
    ),
    network=_closed(enableDNSHostnames=BOOL, subdomain=TEXT, publishNotReadyAddresses=BOOL),
    suspend=BOOL,
    ttlSecondsAfterFinished=NUMBER,
    **{name: ANY for name in ("successPolicy", "startupPolicy", "coordinator", "managedBy", "volumeClaimPolicies")},
)
POD_MONITOR = _closed(
    "selector podMetricsEndpoints",
    selector=_closed(matchLabels=_TEXTS, matchExpressions=ANY),
    podMetricsEndpoints=_list(
        _closed(
            **{name: TEXT for name in ("port", "path", "scheme", "interval", "scrapeTimeout", "proxyUrl")},
            **{
                name: BOOL
                for name in ("honorLabels", "honorTimestamps", "followRedirects", "enableHttp2", "filterRunning")
            },
            **{name: ANY for name in ("params", "tlsConfig", "basicAuth", "oauth2", "authorization")},
            relabelings=_list(_RELABEL),
            metricRelabelings=_list(_RELABEL),
        )
    ),
    jobLabel=TEXT,
    podTargetLabels=_list(TEXT),
    **{name: ANY for name in ("namespaceSelector", "sampleLimit", "targetLimit", "scrapeProtocols", "attachMetadata")},
)
PROMETHEUS_RULE = _closed(
    groups=_list(
        _closed(
            "name",
            **{name: TEXT for name in ("name", "interval", "query_offset", "partial_response_strategy")},
            limit=NUMBER,
            labels=_TEXTS,
            rules=_list(
                _closed(
                    "expr",
                    **{name: TEXT for name in ("alert", "record", "expr", "for", "keep_firing_for")},
                    labels=_TEXTS,
                    annotations=_TEXTS,
                )
            ),
        )
    )
)
PUBLISHED = {
    ("keda.sh/v1alpha1", "ScaledObject"): SCALED_OBJECT,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): TRIGGER_AUTHENTICATION,
    ("jobset.x-k8s.io/v1alpha2", "JobSet"): JOB_SET,
    ("monitoring.coreos.com/v1", "PodMonitor"): POD_MONITOR,
    ("monitoring.coreos.com/v1", "PrometheusRule"): PROMETHEUS_RULE,
}


def validate(found: dict[str, Any]) -> None:
    """Raises the validator's error for an object that the cluster would refuse, or of which it would drop a field."""
    schema = PUBLISHED.get((found["apiVersion"], found["kind"]))
    if schema is None:
        kubernetes_validate.validate(found, KUBERNETES, strict=True)
        return
    jsonschema.validate(found, _closed("spec metadata", apiVersion=TEXT, kind=TEXT, metadata=ANY, spec=schema))
    for job in found["spec"].get("replicatedJobs", []):
        inner = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
        kubernetes_validate.validate(inner, KUBERNETES, strict=True)
