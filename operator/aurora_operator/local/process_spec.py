"""A manifest as the command lines of local processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from aurora_common import variable
from aurora_operator.domain.arguments import (
    ENVIRONMENT,
    Listening,
    Places,
    buffer_arguments,
    gateway_arguments,
    inference_arguments,
    rank_arguments,
    redis_arguments,
    trainer_arguments,
    vllm_arguments,
)
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.local.layout import Layout

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One component's process, which is started once those in `requires` are ready.

    `address`: HOST:PORT, or the path of Redis' socket. `environment` is added to the environment
    that all share; it may hold a password.
    """

    name: str
    argv: tuple[str, ...]
    address: str
    probe: Literal["grpc", "http", "redis"]
    requires: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def digest(self) -> str:
        """Changes if the process must be restarted; does not reveal the arguments."""
        content = json.dumps([self.argv, {**ENVIRONMENT, **self.environment}]).encode()
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports by name; `http` and `grpc` are the clients', `control` is inference's too.

    `engine`: of an engine that is not Aurora's own. `meeting`: where the trainer's ranks meet;
    `ranks`: those of `rank_names`.
    """

    http: int
    grpc: int
    control: int
    buffer: int
    trainer: int
    engine: int
    meeting: int
    ranks: Mapping[str, int] = field(default_factory=dict)


def desired_processes(
    deployment: AuroraDeployment, layout: Layout, ports: Ports, *, python: str
) -> tuple[ProcessSpec, ...]:
    """The processes of a deployment, in the order of their start.

    Inference requires no other: without a buffer it serves, and drops trajectories. A suspended
    deployment has none.
    """
    spec = deployment.spec
    if spec.suspend:
        return ()
    places = local_places(deployment, layout)
    processes = []
    if spec.buffer.embedded is not None:
        argv = (python, *redis_arguments(deployment, places))
        processes.append(ProcessSpec("redis", argv, places.redis_socket, "redis"))
    processes.append(_buffer(deployment, places, ports, python))
    if spec.engine.type == "vllm":
        processes += _vllm(deployment, layout, places, ports, python)
    else:
        processes.append(_native(deployment, places, ports, python))
    if not spec.trainer.suspend:
        processes += _trainer(deployment, places, ports, python)
    return tuple(processes)


def rank_names(deployment: AuroraDeployment) -> tuple[str, ...]:
    """The processes that share the trainer's steps."""
    return tuple(f"rank-{number}" for number in range(1, deployment.spec.trainer.replicas))


def _trainer(
    deployment: AuroraDeployment, places: Places, ports: Ports, python: str
) -> list[ProcessSpec]:
    """The trainer, and the other ranks, if there are any, which share the cores with it."""
    names = rank_names(deployment)
    meeting = _at(ports.meeting)
    local_ranks = deployment.spec.trainer.replicas if names else None
    arguments = trainer_arguments(
        deployment,
        places,
        Listening(grpc=_at(ports.trainer)),
        buffer=_at(ports.buffer),
        ranks=meeting if names else None,
        local_ranks=local_ranks,
    )
    found = [ProcessSpec("trainer", (python, *arguments), _at(ports.trainer), "grpc", ("buffer",))]
    for name in names:
        listen = _at(ports.ranks[name])
        arguments = rank_arguments(
            deployment, places, listen=listen, trainer=meeting, local_ranks=local_ranks
        )
        found.append(ProcessSpec(name, (python, *arguments), listen, "grpc", ("trainer",)))
    return found


def _native(deployment: AuroraDeployment, places: Places, ports: Ports, python: str) -> ProcessSpec:
    arguments = inference_arguments(
        deployment,
        places,
        Listening(grpc=_at(ports.grpc), http=_at(ports.http), control=_at(ports.control)),
        buffer=_at(ports.buffer),
    )
    return ProcessSpec("inference", (python, *arguments), _at(ports.grpc), "grpc")


def _vllm(
    deployment: AuroraDeployment, layout: Layout, places: Places, ports: Ports, python: str
) -> list[ProcessSpec]:
    """The gateway in front of a vLLM, which is what clients and the operator reach, and that vLLM
    unless others run it."""
    folder, engine = str(layout.engine), _at(ports.engine)
    attach = deployment.spec.engine.attach
    gateway = gateway_arguments(
        deployment,
        places,
        Listening(http=_at(ports.http), control=_at(ports.control)),
        buffer=_at(ports.buffer),
        engine=f"http://{engine}" if attach is None else str(attach.url),
        key=f"{folder}/key" if attach is None else str(attach.key_file),
    )
    inference = ProcessSpec("inference", (python, *gateway), _at(ports.control), "grpc")
    if attach is not None:
        return [inference]
    run = vllm_arguments(deployment, "run", claims=places.claims, folder=folder, listen=engine)
    return [
        ProcessSpec("engine", (python, *run), engine, "http"),
        replace(inference, requires=("engine",)),
    ]


def local_places(deployment: AuroraDeployment, layout: Layout) -> Places:
    """Processes of one machine talk over loopback, without certificates and tokens."""
    return Places(
        claims=str(layout.claims),
        models=str(models_folder(deployment, layout)),
        trainer_state=str(layout.trainer),
        redis_data=str(layout.redis),
        redis_socket=str(layout.redis_socket),
    )


def models_folder(deployment: AuroraDeployment, layout: Layout) -> Path:
    claim = deployment.spec.model_store.pvc.claim_name
    return layout.models(claim, deployment.metadata.name)


def _buffer(deployment: AuroraDeployment, places: Places, ports: Ports, python: str) -> ProcessSpec:
    external = deployment.spec.buffer.external
    listening = Listening(grpc=_at(ports.buffer))
    argv = (python, *buffer_arguments(deployment, places, listening))
    if external is None:
        return ProcessSpec("buffer", argv, _at(ports.buffer), "grpc", ("redis",))
    # Preflight refuses a manifest that names a Secret.
    environment = {variable.REDIS_URL: external.url or ""}
    return ProcessSpec("buffer", argv, _at(ports.buffer), "grpc", environment=environment)


def _at(port: int) -> str:
    return f"{HOST}:{port}"
