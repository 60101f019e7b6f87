"""The trainer: a StatefulSet, whose first pod trains and whose others compute gradients for it.

Of the first pod there is at most one at a time, as a StatefulSet promises and a Deployment does
not.
"""

from __future__ import annotations

from aurora_common import variable
from aurora_operator.domain.arguments import Listening, trainer_arguments
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.metadata import Json, component_name, metadata, selector
from aurora_operator.domain.objects.service import service
from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.spec import AuroraDeployment

# Who a pod is among the replicas; the same template serves all, so that none restarts when their
# number changes.
_INDEX = "metadata.labels['apps.kubernetes.io/pod-index']"
# A step of training and a checkpoint that is being written come to their end.
_GRACE_SECONDS = 60


def trainer_objects(deployment: AuroraDeployment, setting: Setting) -> tuple[Json, ...]:
    name = component_name(deployment, "trainer")
    trainer = deployment.spec.trainer
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(deployment, setting, "trainer"),
        "spec": {
            "replicas": 0 if trainer.suspend else trainer.replicas,
            "serviceName": name,
            "selector": {"matchLabels": selector(deployment, "trainer")},
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 3,
            "template": pod.pod_template(
                deployment,
                "trainer",
                spec={
                    "terminationGracePeriodSeconds": _GRACE_SECONDS,
                    "containers": [_container(deployment, setting)],
                    "volumes": [
                        *pod.claim_volumes(deployment, writes_models=True),
                        *pod.tls_volumes(deployment, "trainer"),
                    ],
                },
                override=trainer.pod_template,
            ),
        },
    }
    headless = service(deployment, setting, "trainer", ports={"grpc": pod.GRPC}, headless_name=name)
    return stateful_set, headless


def _container(deployment: AuroraDeployment, setting: Setting) -> Json:
    trainer = deployment.spec.trainer
    arguments = trainer_arguments(
        deployment,
        pod.places(deployment),
        Listening(
            grpc=pod.listen(pod.GRPC),
            health=pod.listen(pod.HEALTH),
            metrics=pod.listen(pod.METRICS),
        ),
        buffer=pod.call(deployment, "buffer"),
        replicas_at=pod.call(deployment, "trainer"),
    )
    made = pod.container(
        "trainer",
        trainer.image or setting.trainer_image,
        arguments,
        resources=trainer.resources,
        ports={"grpc": pod.GRPC, "health": pod.HEALTH, "metrics": pod.METRICS},
        mounts={**pod.claim_mounts(deployment), **pod.tls_mounts(deployment)},
    )
    return {
        **made,
        "env": [
            *made["env"],
            pod.field_variable(variable.REPLICA_INDEX, _INDEX),
            pod.field_variable(variable.POD_IP, "status.podIP"),
        ],
        "imagePullPolicy": setting.image_pull_policy,
        # It listens only once the target and its state are loaded.
        "startupProbe": pod.startup_probe(pod.HEALTH),
        "readinessProbe": pod.readiness_probe(pod.HEALTH),
        "livenessProbe": pod.liveness_probe(grpc={"port": pod.HEALTH}),
    }
