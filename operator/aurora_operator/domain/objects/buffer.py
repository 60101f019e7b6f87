"""The buffer, with its private Redis in the same pod.

Redis has no port, only a Unix domain socket in the folder for temporary files that the pod's
containers share, so it needs no password, TLS, Service or NetworkPolicy.
"""

from __future__ import annotations

from aurora_common import variable
from aurora_operator.domain.arguments import (
    Listening,
    buffer_arguments,
    redis_arguments,
)
from aurora_operator.domain.manifest.spec import AuroraDeployment, ExternalRedis, Resources
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.metadata import Json, component_name, metadata, selector
from aurora_operator.domain.objects.service import service
from aurora_operator.domain.objects.setting import Setting

_GRACE_SECONDS = 30


def buffer_objects(
    deployment: AuroraDeployment, setting: Setting, *, drained: bool = True
) -> tuple[Json, ...]:
    """`drained`: nothing is left that records, should the deployment be suspended."""
    embedded = deployment.spec.buffer.embedded is not None
    made = _with_redis(deployment, setting) if embedded else _before_redis(deployment, setting)
    made["spec"]["replicas"] = 0 if deployment.spec.suspend and drained else 1
    return (
        made,
        service(deployment, setting, "buffer", ports={"grpc": pod.GRPC}),
    )


def _with_redis(deployment: AuroraDeployment, setting: Setting) -> Json:
    embedded = deployment.spec.buffer.embedded
    assert embedded is not None
    claim: Json = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": embedded.storage}},
    }
    if embedded.storage_class_name is not None:
        claim["storageClassName"] = embedded.storage_class_name
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(deployment, setting, "buffer"),
        "spec": {
            "serviceName": component_name(deployment, "buffer"),
            "selector": {"matchLabels": selector(deployment, "buffer")},
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 3,
            "template": _template(deployment, setting),
            "volumeClaimTemplates": [{"metadata": {"name": "redis"}, "spec": claim}],
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": embedded.persistent_volume_claim_retention_policy.when_deleted,
                # The data outlives a pod.
                "whenScaled": "Retain",
            },
        },
    }


def _before_redis(deployment: AuroraDeployment, setting: Setting) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, setting, "buffer"),
        "spec": {
            "selector": {"matchLabels": selector(deployment, "buffer")},
            # Two at once would both trim the stream.
            "strategy": {"type": "Recreate"},
            "revisionHistoryLimit": 3,
            "template": _template(deployment, setting),
        },
    }


def _template(deployment: AuroraDeployment, setting: Setting) -> Json:
    buffer = deployment.spec.buffer
    containers = [_buffer(deployment, setting)]
    volumes = pod.tls_volumes(deployment, "buffer")
    if buffer.embedded is not None:
        containers.append(_redis(deployment, setting))
    elif buffer.external is not None and buffer.external.ca_secret_ref is not None:
        authority = buffer.external.ca_secret_ref
        volume = pod.secret_volume("redis-ca", authority.name)
        volume["secret"]["items"] = [{"key": authority.key, "path": pod.REDIS_CA_FILE}]
        volumes = [*volumes, volume]
    return pod.pod_template(
        deployment,
        setting,
        "buffer",
        spec={
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            "containers": containers,
            "volumes": volumes,
        },
        override=buffer.pod_template,
    )


def _buffer(deployment: AuroraDeployment, setting: Setting) -> Json:
    buffer = deployment.spec.buffer
    places = pod.places(deployment)
    arguments = buffer_arguments(
        deployment,
        places,
        Listening(
            grpc=pod.listen(pod.GRPC),
            health=pod.listen(pod.HEALTH),
            metrics=pod.listen(pod.METRICS),
        ),
    )
    mounts = pod.tls_mounts(deployment)
    if places.redis_ca is not None:
        mounts["redis-ca"] = pod.REDIS_CA_FOLDER
    made = pod.container(
        "buffer",
        buffer.image or setting.buffer_image,
        arguments,
        resources=buffer.resources,
        ports={"grpc": pod.GRPC, "health": pod.HEALTH, "metrics": pod.METRICS},
        mounts=mounts,
    )
    if buffer.external is not None:
        made["env"] = [*made["env"], _redis_url(buffer.external)]
    else:
        # To see how much room its disk has.
        redis = {"name": "redis", "mountPath": pod.REDIS_DATA, "readOnly": True}
        made["volumeMounts"] = [*made["volumeMounts"], redis]
    return {
        **made,
        "imagePullPolicy": setting.image_pull_policy,
        "readinessProbe": pod.readiness_probe(pod.HEALTH),
        # It reports not serving while Redis is down, which is no reason to restart it.
        "livenessProbe": pod.liveness_probe(tcpSocket={"port": "health"}),
    }


def _redis_url(external: ExternalRedis) -> Json:
    if external.url_secret_ref is None:
        return {"name": variable.REDIS_URL, "value": external.url}
    reference = external.url_secret_ref
    return {
        "name": variable.REDIS_URL,
        "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}},
    }


def _redis(deployment: AuroraDeployment, setting: Setting) -> Json:
    buffer = deployment.spec.buffer
    assert buffer.embedded is not None
    given = buffer.embedded.resources
    # No probe: it is unreachable from outside the pod, and the buffer reports its health.
    return {
        **pod.container(
            "redis",
            buffer.image or setting.buffer_image,
            redis_arguments(deployment, pod.places(deployment)),
            resources=Resources(
                limits={"memory": str(int(buffer.embedded.memory)), **given.limits},
                requests={"memory": str(buffer.retained_bytes), **given.requests},
            ),
            ports={},
            mounts={"redis": pod.REDIS_DATA},
        ),
        "imagePullPolicy": setting.image_pull_policy,
    }
