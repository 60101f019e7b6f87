"""A pod with a stock vLLM: Aurora prepares it, and its gateway runs beside it.

    initContainers  prepare     writes plugin, key and start script into the volume `vllm`
                    inference   the gateway, a sidecar: it starts before vLLM and ends after it
    containers      vllm        the user's image, on loopback; it becomes what the script starts

A pod of a further node has no gateway: its vLLM computes for the one that leads.

Nothing probes vLLM itself: the gateway is ready while vLLM decodes and serves the stable draft, and
a vLLM that breaks exits.
"""

from __future__ import annotations

from aurora_operator.domain.arguments import vllm_arguments
from aurora_operator.domain.manifest.spec import AuroraDeployment, PodTemplate
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.gateway import gateway_container
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
    mounts = _mounts(deployment)
    return {
        "initContainers": [
            _prepare(deployment, setting, mounts),
            _gateway(deployment, setting, drain_seconds=drain_seconds),
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
        "volumes": _volumes(),
    }


def node_spec(deployment: AuroraDeployment, setting: Setting) -> Json:
    """Containers and volumes of the pod of a further node."""
    mounts = _mounts(deployment)
    return {
        "initContainers": [_prepare(deployment, setting, mounts)],
        "containers": [_vllm(deployment, setting, mounts)],
        "volumes": _volumes(),
    }


def node_override(template: PodTemplate) -> PodTemplate:
    """The user's patch without what it says of the gateway, which such a pod does not have."""
    spec = {
        key: [each for each in value if not _is_gateway(each)]
        if key in ("containers", "initContainers") and isinstance(value, list)
        else value
        for key, value in template.spec.items()
    }
    return template.model_copy(update={"spec": spec})


def _is_gateway(container: object) -> bool:
    return isinstance(container, dict) and container.get("name") == "inference"


def _mounts(deployment: AuroraDeployment) -> dict[str, str]:
    return {"vllm": _FOLDER, **pod.claim_mounts(deployment)}


def _volumes() -> list[Json]:
    return [
        {"name": "vllm", "emptyDir": {}},
        # Workers of one model share tensors there.
        {"name": "shm", "emptyDir": {"medium": "Memory"}},
    ]


def _prepare(deployment: AuroraDeployment, setting: Setting, mounts: dict[str, str]) -> Json:
    arguments = vllm_arguments(
        deployment, "prepare", claims=pod.CLAIMS, folder=_FOLDER, listen=_ENGINE
    )
    return pod.inference_container(
        "prepare", deployment, setting, arguments, ports={}, mounts=mounts
    )


def _gateway(deployment: AuroraDeployment, setting: Setting, *, drain_seconds: int) -> Json:
    made = gateway_container(
        deployment,
        setting,
        engine=f"http://{_ENGINE}",
        key=f"{_FOLDER}/key",
        mounts={"vllm": _FOLDER},
        drain_listen=_DRAIN,
        drain_seconds=drain_seconds,
    )
    return {**made, "restartPolicy": "Always"}


def _vllm(
    deployment: AuroraDeployment,
    setting: Setting,
    mounts: dict[str, str],
    *,
    pre_stop: str | None = None,
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
    made = {
        **made,
        "command": ["/bin/sh", f"{_FOLDER}/start"],
        # PyTorch asks for the user's name, and this user has none.
        "env": [{"name": "HOME", "value": "/tmp"}, {"name": "USER", "value": "vllm"}],
        "imagePullPolicy": setting.image_pull_policy,
    }
    if pre_stop is not None:
        made["lifecycle"] = {"preStop": {"exec": {"command": ["python3", "-c", pre_stop]}}}
    return made
