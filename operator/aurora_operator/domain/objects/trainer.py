"""The trainer and, with several replicas, the pods that share its steps: torch.distributed's ranks.

The trainer is a StatefulSet of one, which guarantees at most one pod at a time; a Deployment does
not. It is rank 0. The other ranks keep no state, so they are a Deployment: any number may run
anywhere, and one that cannot start blocks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aurora_operator.domain.arguments import Listening, rank_arguments, trainer_arguments
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
_PORTS = {"grpc": pod.GRPC, "health": pod.HEALTH, "metrics": pod.METRICS}


def trainer_objects(deployment: AuroraDeployment, setting: Setting) -> tuple[Json, ...]:
    name = component_name(deployment, "trainer")
    ports = {"grpc": pod.GRPC}
    objects = (
        _trainer(deployment, setting),
        service(deployment, setting, "trainer", ports=ports, headless_name=name),
    )
    return (*objects, _ranks(deployment, setting)) if has_ranks(deployment) else objects


def has_ranks(deployment: AuroraDeployment) -> bool:
    """Whether there are ranks beside the trainer's."""
    trainer = deployment.spec.trainer
    return trainer.replicas > 1 and not trainer.suspend


def _ranks(deployment: AuroraDeployment, setting: Setting) -> Json:
    trainer = deployment.spec.trainer
    holds_target = trainer.targets == "Recompute"
    arguments = rank_arguments(
        deployment,
        pod.places(deployment),
        listen=pod.listen(pod.HEALTH),
        trainer=pod.call(deployment, "trainer", pod.RANKS),
        metrics=pod.listen(pod.METRICS),
    )
    ports = {"health": pod.HEALTH, "metrics": pod.METRICS}
    mounts = pod.claim_mounts(deployment) if holds_target else {}
    volumes = pod.claim_volumes(deployment, writes_models=False) if holds_target else []
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, setting, "rank"),
        "spec": {
            "replicas": 0 if deployment.spec.suspend else trainer.replicas - 1,
            "selector": {"matchLabels": selector(deployment, "rank")},
            "revisionHistoryLimit": 3,
            "template": pod.pod_template(
                deployment,
                setting,
                "rank",
                spec={
                    "containers": [
                        _container(deployment, setting, arguments, ports=ports, mounts=mounts)
                    ],
                    "volumes": volumes,
                },
                override=trainer.pod_template,
            ),
        },
    }


def _trainer(deployment: AuroraDeployment, setting: Setting) -> Json:
    ranks = has_ranks(deployment)
    arguments = trainer_arguments(
        deployment,
        pod.places(deployment),
        _LISTENING,
        buffer=pod.call(deployment, "buffer"),
        ranks=pod.listen(pod.RANKS) if ranks else None,
    )
    ports = {**_PORTS, "ranks": pod.RANKS} if ranks else _PORTS
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
                    "containers": [
                        _container(deployment, setting, arguments, ports=ports, mounts=mounts)
                    ],
                    "volumes": [
                        *pod.claim_volumes(deployment, writes_models=True),
                        *pod.tls_volumes(deployment, "trainer"),
                    ],
                },
                override=deployment.spec.trainer.pod_template,
            ),
        },
    }


def _container(
    deployment: AuroraDeployment,
    setting: Setting,
    arguments: Sequence[str],
    *,
    ports: Mapping[str, int],
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
            ports=ports,
            mounts=mounts,
        ),
        "imagePullPolicy": setting.image_pull_policy,
        # Neither is ready before the target is loaded, and the trainer's state.
        "startupProbe": pod.startup_probe(pod.HEALTH),
        "readinessProbe": pod.readiness_probe(pod.HEALTH),
        "livenessProbe": pod.liveness_probe(grpc={"port": pod.HEALTH}),
    }
