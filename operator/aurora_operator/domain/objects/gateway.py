"""The container of a gateway, beside a vLLM of Aurora's or in front of one that others own."""

from __future__ import annotations

from collections.abc import Mapping

from aurora_operator.domain.arguments import Listening, gateway_arguments
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.metadata import Json
from aurora_operator.domain.objects.setting import Setting


def gateway_container(
    deployment: AuroraDeployment,
    setting: Setting,
    *,
    engine: str,
    key: str,
    mounts: Mapping[str, str],
    drain_seconds: int,
    drain_listen: str | None = None,
) -> Json:
    """`engine`: vLLM's URL; `key`: the path of its API key."""
    arguments = gateway_arguments(
        deployment,
        pod.places(deployment),
        Listening(http=pod.listen(pod.HTTP), control=pod.listen(pod.CONTROL)),
        buffer=pod.call(deployment, "buffer"),
        engine=engine,
        key=key,
        drain_listen=drain_listen,
        drain_seconds=drain_seconds,
    )
    made = pod.inference_container(
        "inference",
        deployment,
        setting,
        arguments,
        ports={"http": pod.HTTP, "control": pod.CONTROL},
        mounts={
            **mounts,
            **pod.claim_mounts(deployment),
            **pod.tls_mounts(deployment),
            **pod.token_mounts(deployment),
        },
    )
    return {
        **made,
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": pod.liveness_probe(tcpSocket={"port": "http"}),
    }
