"""The fields of kinds that are not Kubernetes' own, as their projects define them.

Written by hand after the definitions named beside each: every field that such an object may have at the places where
ours have some, with types where ours use them. A field that is misspelt, in the wrong place or of the wrong type is
found; what a project checks beyond its types is not.
"""

from __future__ import annotations

from typing import Any

import jsonschema

Schema = dict[str, Any]

ANY: Schema = {}
TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION: Schema = {"type": "string", "pattern": r"^(([0-9]+)(ms|[smhdwy]))+$"}


def fields(*required: str, **known: Schema) -> Schema:
    """An object with these fields and no others."""
    return {"type": "object", "required": list(required), "properties": known, "additionalProperties": False}


def several(what: Schema, least: int = 1) -> Schema:
    return {"type": "array", "items": what, "minItems": least}


def kind(name: str, version: str, spec: Schema) -> Schema:
    named = fields("name", name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
    return fields(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": version}, kind={"const": name}, metadata=named, spec=spec,
    )  # fmt: skip


_RULES = fields(
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
    tolerance=ANY,
    policies=several(
        fields(
            *("type", "value", "periodSeconds"),
            type={"enum": ["Pods", "Percent"]},
            value={"type": "integer", "minimum": 1},
            periodSeconds={"type": "integer", "minimum": 1, "maximum": 1800},
        )
    ),
)  # fmt: skip

_TRIGGER: Schema = {
    **fields(
        *("type", "metadata"),
        type=TEXT, name=TEXT, useCachedMetrics=FLAG, metadata=TEXTS, authenticationRef=ANY,
        metricType={"enum": ["Utilization", "Value", "AverageValue"]},
    ),
    "allOf": [
        {
            "if": {"properties": {"type": {"const": "prometheus"}}},
            "then": {
                "properties": {
                    "metricType": {"enum": ["Value", "AverageValue"]},
                    "metadata": fields(
                        *("serverAddress", "query", "threshold"),
                        serverAddress=TEXT, query=TEXT, threshold=TEXT, activationThreshold=TEXT, namespace=TEXT,
                        customHeaders=TEXT, ignoreNullValues={"enum": ["true", "false"]}, queryParameters=TEXT,
                        unsafeSsl={"enum": ["true", "false"]}, timeout=TEXT,
                    ),
                }
            },
        },
        {
            "if": {"properties": {"type": {"const": "cpu"}}},
            "then": {
                "required": ["metricType"],
                "properties": {
                    "metricType": {"enum": ["Utilization", "AverageValue"]},
                    "metadata": fields("value", value=TEXT, containerName=TEXT),
                },
            },
        },
    ],
}  # fmt: skip

SCALED_OBJECT = kind(
    "ScaledObject",
    "keda.sh/v1alpha1",
    fields(
        *("scaleTargetRef", "triggers"),
        scaleTargetRef=fields("name", name=TEXT, apiVersion=TEXT, kind=TEXT, envSourceContainerName=TEXT),
        pollingInterval=COUNT, cooldownPeriod=COUNT, initialCooldownPeriod=COUNT,
        idleReplicaCount=COUNT, minReplicaCount=COUNT, maxReplicaCount=COUNT,
        fallback=ANY,
        advanced=fields(
            restoreToOriginalReplicaCount=FLAG,
            scalingModifiers=ANY,
            horizontalPodAutoscalerConfig=fields(name=TEXT, behavior=fields(scaleUp=_RULES, scaleDown=_RULES)),
        ),
        triggers=several(_TRIGGER),
    ),
)  # fmt: skip
"""KEDA: apis/keda/v1alpha1/scaledobject_types.go and scaletriggers_types.go of github.com/kedacore/keda; the metadata
of triggers: keda.sh/docs/latest/scalers/prometheus and /cpu. The behaviour is Kubernetes' own, of autoscaling/v2."""

SERVICE_MONITOR = kind(
    "ServiceMonitor",
    "monitoring.coreos.com/v1",
    fields(
        *("endpoints", "selector"),
        selector=fields(matchLabels=TEXTS, matchExpressions=ANY),
        endpoints=several(
            fields(
                port=TEXT, targetPort=ANY, path={"type": "string", "pattern": "^/"}, scheme={"enum": ["http", "https"]},
                params=ANY, interval=DURATION, scrapeTimeout=DURATION, tlsConfig=ANY, authorization=ANY, basicAuth=ANY,
                oauth2=ANY, honorLabels=FLAG, honorTimestamps=FLAG, metricRelabelings=ANY, relabelings=ANY,
                followRedirects=FLAG, enableHttp2=FLAG, filterRunning=FLAG,
            )
        ),
        jobLabel=TEXT, targetLabels=ANY, podTargetLabels=ANY, namespaceSelector=ANY, sampleLimit=COUNT,
        scrapeProtocols=ANY, targetLimit=COUNT, labelLimit=COUNT, labelNameLengthLimit=COUNT,
        labelValueLengthLimit=COUNT, keepDroppedTargets=COUNT, attachMetadata=ANY, scrapeClass=TEXT, bodySizeLimit=ANY,
    ),
)  # fmt: skip
"""The Prometheus operator: pkg/apis/monitoring/v1/servicemonitor_types.go and types.go of
github.com/prometheus-operator/prometheus-operator."""

CLUSTER_SERVING_RUNTIME = kind(
    "ClusterServingRuntime",
    "serving.kserve.io/v1alpha1",
    fields(
        "containers",
        supportedModelFormats=several(
            fields("name", name=TEXT, version=TEXT, autoSelect=FLAG, priority={"type": "integer", "minimum": 1})
        ),
        protocolVersions=several({"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]}),
        multiModel=FLAG, disabled=FLAG, workerSpec=ANY,
        containers=several({"type": "object", "required": ["name", "image"]}),
        volumes=ANY, nodeSelector=TEXTS, affinity=ANY, tolerations=ANY, labels=TEXTS, annotations=TEXTS,
        imagePullSecrets=ANY, hostIPC=FLAG,
        grpcEndpoint=TEXT, grpcDataEndpoint=TEXT, httpDataEndpoint=TEXT, replicas=COUNT, storageHelper=ANY,
        builtInAdapter=ANY,
    ),
)  # fmt: skip
"""KServe: pkg/apis/serving/v1alpha1/servingruntime_types.go of github.com/kserve/kserve. Containers and volumes are
Kubernetes' own, and validated as those of a Pod."""

SCHEMAS = {"ScaledObject": SCALED_OBJECT, "ServiceMonitor": SERVICE_MONITOR,
           "ClusterServingRuntime": CLUSTER_SERVING_RUNTIME}  # fmt: skip


def check(one: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError for an object that is not as its project defines it."""
    jsonschema.validate(one, SCHEMAS[one["kind"]])
