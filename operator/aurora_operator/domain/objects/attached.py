"""Gateways in front of a vLLM that others own: one for each of its pods, none of which is touched.

Each is a Deployment of its own, so that a pod that ends takes its gateway along and no other, and a
canary's blocks stay those of one engine. The Services of the inference spread requests over them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.manifest.spec.engine import Attach
from aurora_operator.domain.objects import pod
from aurora_operator.domain.objects.gateway import gateway_container
from aurora_operator.domain.objects.metadata import MANAGER, Json
from aurora_operator.domain.objects.setting import Setting
from aurora_operator.domain.plan.observation import Problem

# Labels and annotations of gateways.
ENGINE = "aurora.dev/engine"
ENGINE_POD = "aurora.dev/engine-pod"
_KEY_FOLDER = "/etc/aurora/engine"


@dataclass(frozen=True, slots=True)
class EnginePod:
    """A pod in which an attached vLLM runs."""

    name: str
    uid: str
    address: str

    @property
    def label(self) -> str:
        """Another pod of the same name has another one."""
        return hashlib.sha256(self.uid.encode()).hexdigest()[:8]


class Followed(NamedTuple):
    """A deployment's engines; `taken`: pods that it selects, and the deployment they follow."""

    engines: tuple[EnginePod, ...] = ()
    taken: tuple[tuple[str, str], ...] = ()

    @property
    def problems(self) -> list[Problem]:
        return [
            Problem("EngineTaken", f"pod {pod} is attached to the AuroraDeployment {other} already")
            for pod, other in self.taken
        ]


def engine_selector(attach: Attach) -> str:
    """As the API server takes it."""
    return ",".join(f"{name}={value}" for name, value in sorted((attach.selector or {}).items()))


def engine_pods(found: Iterable[Mapping[str, Any]]) -> tuple[EnginePod, ...]:
    """The pods that run and are not ending, by name; a gateway is no engine."""
    pods = [
        EnginePod(metadata["name"], metadata["uid"], status["podIP"])
        for metadata, status in ((body["metadata"], body.get("status", {})) for body in found)
        if "deletionTimestamp" not in metadata
        and status.get("phase") == "Running"
        and status.get("podIP")
        and metadata.get("labels", {}).get("app.kubernetes.io/managed-by") != MANAGER
    ]
    return tuple(sorted(pods, key=lambda engine: engine.name))


def attached_spec(
    deployment: AuroraDeployment,
    setting: Setting,
    engine: EnginePod,
    *,
    endpoints_seconds: int,
    drain_seconds: int,
) -> Json:
    """Containers and volumes of the pod of a gateway."""
    attach = deployment.spec.engine.attach
    assert attach is not None
    assert attach.key_secret_ref is not None
    made = gateway_container(
        deployment,
        setting,
        engine=f"http://{pod.url_host(engine.address)}:{attach.port}",
        key=f"{_KEY_FOLDER}/key",
        mounts={"engine-key": _KEY_FOLDER},
        drain_seconds=drain_seconds,
    )
    key = pod.secret_volume("engine-key", attach.key_secret_ref.name)
    key["secret"]["items"] = [{"key": attach.key_secret_ref.key, "path": "key"}]
    lifecycle = {"preStop": {"sleep": {"seconds": endpoints_seconds}}}
    return {"containers": [{**made, "lifecycle": lifecycle}], "volumes": [key]}
