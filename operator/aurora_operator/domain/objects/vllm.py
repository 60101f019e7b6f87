"""A pod with a stock vLLM: Aurora prepares it, and its gateway runs beside it.

    initContainers  prepare     writes plugin, key and start script into the volume `vllm`
                    inference   the gateway, a sidecar: it starts before vLLM and ends after it
    containers      vllm        the user's image, on loopback; it becomes what the script starts

Nothing probes vLLM itself: the gateway is ready while vLLM decodes and serves the stable draft, and
a vLLM that breaks exits.
"""

from __future__ import annotations

from aurora_operator.domain.arguments import Listening, gateway_arguments, vllm_arguments
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.metadata import Json
from aurora_operator.domain.objects.setting import Setting

_IMAGE = "vllm/vllm-openai:v0.32.0"
_FOLDER = "/aurora"
_ENGINE = "127.0.0.1:8001"
_DRAIN = "127.0.0.1:9003"
# It aborts what arrives after SIGTERM, so the gateway stops admitting first, once it is known that
# the pod is no endpoint any more.
_PRE_STOP = """\
import time, urllib.request
time.sleep({endpoints})
drain = urllib.request.Request("http://{drain}/drain", method="POST")
urllib.request.urlopen(drain, timeout={limit})
"""


def vllm_spec(
    deployment: AuroraDeployment, setting: Setting, *, endpoints_seconds: int, drain_seconds: int
) -> Json:
    """Containers and volumes of the pod."""
    mounts = {"vllm": _FOLDER, **pod.claim_mounts(deployment)}
    return {
        "initContainers": [
            _prepare(deployment, setting, mounts),
            _gateway(deployment, setting, mounts, drain_seconds=drain_seconds),
        ],
        "containers": [
            _vllm(
                deployment,
                setting,
                mounts,
                pre_stop=_PRE_STOP.format(
                    endpoints=endpoints_seconds, drain=_DRAIN, limit=drain_seconds
                ),
            )
        ],
        "volumes": [
            {"name": "vllm", "emptyDir": {}},
            # Workers of one model share tensors there.
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }


def _prepare(deployment: AuroraDeployment, setting: Setting, mounts: dict[str, str]) -> Json:
    arguments = vllm_arguments(
        deployment, "prepare", claims=pod.CLAIMS, folder=_FOLDER, listen=_ENGINE
    )
    return _ours("prepare", deployment, setting, arguments, ports={}, mounts=mounts)


def _gateway(
    deployment: AuroraDeployment, setting: Setting, mounts: dict[str, str], *, drain_seconds: int
) -> Json:
    listening = Listening(http=pod.listen(pod.HTTP), control=pod.listen(pod.CONTROL))
    arguments = gateway_arguments(
        deployment,
        pod.places(deployment),
        listening,
        buffer=pod.call(deployment, "buffer"),
        engine=_ENGINE,
        folder=_FOLDER,
        drain_listen=_DRAIN,
        drain_seconds=drain_seconds,
    )
    all_mounts = {**mounts, **pod.tls_mounts(deployment)}
    if deployment.spec.security.auth_secret_ref is not None:
        all_mounts["aurora-tokens"] = pod.TOKENS
    ports = {"http": pod.HTTP, "control": pod.CONTROL}
    return {
        **_ours("inference", deployment, setting, arguments, ports=ports, mounts=all_mounts),
        "restartPolicy": "Always",
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "periodSeconds": 2,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": pod.liveness_probe(tcpSocket={"port": "http"}),
    }


def _ours(
    name: str,
    deployment: AuroraDeployment,
    setting: Setting,
    arguments: tuple[str, ...],
    *,
    ports: dict[str, int],
    mounts: dict[str, str],
) -> Json:
    inference = deployment.spec.inference
    made = pod.container(
        name,
        inference.image or setting.inference_image,
        arguments,
        resources=inference.resources,
        ports=ports,
        mounts=mounts,
    )
    return {**made, "imagePullPolicy": setting.image_pull_policy}


def _vllm(
    deployment: AuroraDeployment, setting: Setting, mounts: dict[str, str], *, pre_stop: str
) -> Json:
    engine = deployment.spec.engine
    made = pod.container(
        "vllm",
        engine.image or _IMAGE,
        (),
        resources=engine.resources,
        ports={},
        mounts={**mounts, "shm": "/dev/shm"},
    )
    return {
        **made,
        "command": ["/bin/sh", f"{_FOLDER}/start"],
        # PyTorch asks for the user's name, and this user has none.
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "USER", "value": "vllm"}],
        "imagePullPolicy": setting.image_pull_policy,
        "lifecycle": {"preStop": {"exec": {"command": ["python3", "-c", pre_stop]}}},
    }
