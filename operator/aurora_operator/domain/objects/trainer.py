"""The trainer and, with several replicas, the pods that compute gradients for it.

The trainer is a StatefulSet of one, which guarantees at most one pod at a time; a Deployment does
not. Gradient pods keep no state and need no volume, so they are a Deployment: any number may run
anywhere, and one that cannot start blocks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from aurora_operator.domain.arguments import Listening, gradient_arguments, trainer_arguments
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.metadata import Json, component_name, metadata, selector
from aurora_operator.domain.objects.service import service
from aurora_operator.domain.objects.setting import Setting

# Long enough to finish a training step and a checkpoint being written.
_GRACE_SECONDS = 60
_LISTENING = Listening(
    grpc=pod.listen(pod.GRPC), health=pod.listen(pod.HEALTH), metrics=pod.listen(pod.METRICS)
)


def trainer_objects(deployment: AuroraDeployment, setting: Setting) -> tuple[Json, ...]:
    trainer = deployment.spec.trainer
    objects = (_trainer(deployment, setting), _service(deployment, setting, "trainer"))
    if not has_gradient_pods(deployment):
        return objects
    gradient = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, setting, "gradient"),
        "spec": {
            "replicas": 0 if deployment.spec.suspend else trainer.replicas - 1,
            "selector": {"matchLabels": selector(deployment, "gradient")},
            "revisionHistoryLimit": 3,
            "template": pod.pod_template(
                deployment,
                setting,
                "gradient",
                spec={
                    "containers": [
                        _container(
                            deployment,
                            setting,
                            gradient_arguments(deployment, pod.places(deployment), _LISTENING),
                            mounts=pod.tls_mounts(deployment),
                        )
                    ],
                    "volumes": pod.tls_volumes(deployment, "trainer"),
                },
                override=trainer.pod_template,
            ),
        },
    }
    return (*objects, gradient, _service(deployment, setting, "gradient"))


def has_gradient_pods(deployment: AuroraDeployment) -> bool:
    trainer = deployment.spec.trainer
    return trainer.replicas > 1 and not trainer.suspend


def _trainer(deployment: AuroraDeployment, setting: Setting) -> Json:
    arguments = trainer_arguments(
        deployment,
        pod.places(deployment),
        _LISTENING,
        buffer=pod.call(deployment, "buffer"),
        replicas_at=pod.call(deployment, "gradient") if has_gradient_pods(deployment) else None,
    )
    mounts = {**pod.claim_mounts(deployment), **pod.tls_mounts(deployment)}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(deployment, setting, "trainer"),
        "spec": {
            "replicas": 0 if deployment.spec.suspend or deployment.spec.trainer.suspend else 1,
            "serviceName": component_name(deployment, "trainer"),
            "selector": {"matchLabels": selector(deployment, "trainer")},
            "podManagementPolicy": "Parallel",
            "revisionHistoryLimit": 3,
            "template": pod.pod_template(
                deployment,
                setting,
                "trainer",
                spec={
                    "terminationGracePeriodSeconds": _GRACE_SECONDS,
                    "containers": [_container(deployment, setting, arguments, mounts=mounts)],
                    "volumes": [
                        *pod.claim_volumes(deployment, writes_models=True),
                        *pod.tls_volumes(deployment, "trainer"),
                    ],
                },
                override=deployment.spec.trainer.pod_template,
            ),
        },
    }


def _service(
    deployment: AuroraDeployment, setting: Setting, component: Literal["trainer", "gradient"]
) -> Json:
    name = component_name(deployment, component)
    return service(deployment, setting, component, ports={"grpc": pod.GRPC}, headless_name=name)


def _container(
    deployment: AuroraDeployment,
    setting: Setting,
    arguments: Sequence[str],
    *,
    mounts: Mapping[str, str],
) -> Json:
    """The same name in both: the manifest's settings apply to both."""
    trainer = deployment.spec.trainer
    return {
        **pod.container(
            "trainer",
            trainer.image or setting.trainer_image,
            arguments,
            resources=trainer.resources,
            ports={"grpc": pod.GRPC, "health": pod.HEALTH, "metrics": pod.METRICS},
            mounts=mounts,
        ),
        "imagePullPolicy": setting.image_pull_policy,
        # The trainer listens only once the target and its state are loaded.
        "startupProbe": pod.startup_probe(pod.HEALTH),
        "readinessProbe": pod.readiness_probe(pod.HEALTH),
        "livenessProbe": pod.liveness_probe(grpc={"port": pod.HEALTH}),
    }
