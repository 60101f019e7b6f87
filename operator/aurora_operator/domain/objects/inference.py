"""Inference: its workload behind two Services, with a disruption budget and optional autoscaler.

The workload is a Deployment; one for each engine in front of attached ones; a LeaderWorkerSet if an
engine spans several nodes.
"""

from __future__ import annotations

from collections.abc import Sequence

from aurora_operator.domain.arguments import Listening, inference_arguments
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.attached import (
    ENGINE,
    ENGINE_POD,
    EnginePod,
    attached_spec,
)
from aurora_operator.domain.objects.metadata import Json, component_name, metadata, selector
from aurora_operator.domain.objects.service import service
from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.objects.vllm import node_override, node_spec, vllm_spec

WAITING_METRIC = "aurora_waiting_requests"

# Endpoint changes propagate before the drain begins; the rest of the grace period is for the engine
# to stop and the last outcomes to be read.
_ENDPOINTS_SECONDS = 5
_DRAIN_SECONDS = 40
_GRACE_SECONDS = 60
_ONE_MORE = {"maxUnavailable": 0, "maxSurge": 1}
_CLIENT_PORTS = {"http": pod.HTTP, "grpc": pod.GRPC}
# A gateway has nothing to generate with.
_GATEWAY_PORTS = {"http": pod.HTTP}


def inference_objects(
    deployment: AuroraDeployment, setting: Setting, engines: Sequence[EnginePod] = ()
) -> tuple[Json, ...]:
    """`engines`: of an attached vLLM."""
    ports = _CLIENT_PORTS if deployment.spec.engine.type == "native" else _GATEWAY_PORTS
    objects = [
        *_workloads(deployment, setting, engines),
        service(deployment, setting, "inference", ports=ports),
        service(
            deployment,
            setting,
            "inference",
            ports=ports,
            headless_name=f"{component_name(deployment, 'inference')}-pods",
        ),
        _budget(deployment, setting),
    ]
    if deployment.spec.inference.autoscaling is not None:
        objects.append(_autoscaler(deployment, setting))
    return tuple(objects)


def has_nodes(deployment: AuroraDeployment) -> bool:
    """Whether an engine has pods beside the one with the gateway."""
    return deployment.spec.engine.nodes > 1


def inference_kind(deployment: AuroraDeployment) -> str:
    """The kind of its workload."""
    return "LeaderWorkerSet" if has_nodes(deployment) else "Deployment"


def _workloads(
    deployment: AuroraDeployment, setting: Setting, engines: Sequence[EnginePod]
) -> list[Json]:
    seconds = {"endpoints_seconds": _ENDPOINTS_SECONDS, "drain_seconds": _DRAIN_SECONDS}
    if deployment.spec.engine.attach is not None:
        return [
            _of_engine(
                _deployment(
                    deployment, setting, attached_spec(deployment, setting, engine, **seconds)
                ),
                engine,
            )
            for engine in engines
        ]
    if has_nodes(deployment):
        return [_group(deployment, setting, vllm_spec(deployment, setting, **seconds))]
    if deployment.spec.engine.type == "vllm":
        return [_deployment(deployment, setting, vllm_spec(deployment, setting, **seconds))]
    own = {"containers": [_container(deployment, setting)], "volumes": []}
    return [_deployment(deployment, setting, own)]


def _of_engine(made: Json, engine: EnginePod) -> Json:
    """The Deployment as that of one engine's gateway."""
    made["metadata"]["name"] += f"-{engine.label}"
    for named in (made["metadata"], made["spec"]["template"]["metadata"]):
        named["labels"] = {**named["labels"], ENGINE: engine.label}
        named["annotations"] = {**named.get("annotations", {}), ENGINE_POD: engine.name}
    made["spec"]["selector"]["matchLabels"][ENGINE] = engine.label
    return made


def _deployment(deployment: AuroraDeployment, setting: Setting, own: Json) -> Json:
    """`own`: containers and volumes."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, setting, "inference"),
        "spec": {
            "selector": {"matchLabels": selector(deployment, "inference")},
            # Pods are replaced one by one, each only once its successor serves.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": _ONE_MORE},
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 3,
            "template": _template(deployment, setting, own),
            **_replicas(deployment),
        },
    }


def _group(deployment: AuroraDeployment, setting: Setting, own: Json) -> Json:
    """Each replica is a group of pods: one with the gateway, which leads, and one for each further
    node. If a container of one restarts, the whole group is made again: vLLM cannot go on.
    """
    rest = node_spec(deployment, setting)
    volumes = [*rest["volumes"], *pod.claim_volumes(deployment, writes_models=False)]
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": metadata(deployment, setting, "inference"),
        "spec": {
            # A headless Service for each group: one for all would have the name of Aurora's own.
            "networkConfig": {"subdomainPolicy": "UniquePerReplica"},
            "rolloutStrategy": {"type": "RollingUpdate", "rollingUpdateConfiguration": _ONE_MORE},
            "leaderWorkerTemplate": {
                "size": deployment.spec.engine.nodes,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": _template(deployment, setting, own),
                "workerTemplate": pod.pod_template(
                    deployment,
                    setting,
                    "node",
                    spec={
                        "terminationGracePeriodSeconds": _GRACE_SECONDS,
                        **rest,
                        "volumes": volumes,
                    },
                    override=node_override(deployment.spec.inference.pod_template),
                ),
            },
            **_replicas(deployment),
        },
    }


def _template(deployment: AuroraDeployment, setting: Setting, own: Json) -> Json:
    return pod.pod_template(
        deployment,
        setting,
        "inference",
        spec={
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "topologySpreadConstraints": [_spread(deployment)],
            **own,
            "volumes": [
                *own["volumes"],
                *pod.claim_volumes(deployment, writes_models=False),
                *pod.tls_volumes(deployment, "inference"),
                *pod.token_volumes(deployment),
            ],
        },
        override=deployment.spec.inference.pod_template,
    )


def _replicas(deployment: AuroraDeployment) -> Json:
    """None if an autoscaler decides them."""
    if deployment.spec.suspend:
        # An autoscaler leaves a workload of 0 replicas alone.
        return {"replicas": 0}
    if deployment.spec.inference.autoscaling is None:
        return {"replicas": deployment.spec.replicas}
    return {}


def _container(deployment: AuroraDeployment, setting: Setting) -> Json:
    listening = Listening(
        grpc=pod.listen(pod.GRPC), http=pod.listen(pod.HTTP), control=pod.listen(pod.CONTROL)
    )
    arguments = inference_arguments(
        deployment,
        pod.places(deployment),
        listening,
        buffer=pod.call(deployment, "buffer"),
        drain_seconds=_DRAIN_SECONDS,
    )
    return {
        **pod.inference_container(
            "inference",
            deployment,
            setting,
            arguments,
            ports={**_CLIENT_PORTS, "control": pod.CONTROL},
            mounts={
                **pod.claim_mounts(deployment),
                **pod.tls_mounts(deployment),
                **pod.token_mounts(deployment),
            },
        ),
        "lifecycle": {"preStop": {"sleep": {"seconds": _ENDPOINTS_SECONDS}}},
        "startupProbe": pod.startup_probe(pod.GRPC),
        "readinessProbe": pod.readiness_probe(pod.GRPC),
        # Unlike the gRPC health, this asks the engine's thread.
        "livenessProbe": pod.liveness_probe(httpGet={"path": "/health", "port": "http"}),
    }


def _spread(deployment: AuroraDeployment) -> Json:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        # Without matchLabelKeys, which the API server adds to a pod's own selector: it would refuse
        # a copy of the pod, as `kubectl debug --copy-to` makes one.
        "labelSelector": {"matchLabels": selector(deployment, "inference")},
    }


def _budget(deployment: AuroraDeployment, setting: Setting) -> Json:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(deployment, setting, "inference"),
        "spec": {
            "maxUnavailable": 1,
            # A pod that does not serve must not block a node's drain.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector(deployment, "inference")},
        },
    }


def _autoscaler(deployment: AuroraDeployment, setting: Setting) -> Json:
    autoscaling = deployment.spec.inference.autoscaling
    assert autoscaling is not None
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(deployment, setting, "inference"),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": component_name(deployment, "inference"),
            },
            "minReplicas": autoscaling.min_replicas,
            "maxReplicas": autoscaling.max_replicas,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": WAITING_METRIC},
                        "target": {
                            "type": "AverageValue",
                            "averageValue": str(autoscaling.waiting_requests),
                        },
                    },
                }
            ],
        },
    }
