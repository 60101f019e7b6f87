"""What runs where: a manifest as the command lines of local processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aurora_common.location import local_path
from aurora_operator.domain.spec import AuroraDeployment
from aurora_operator.runtime.layout import Layout

HOST = "127.0.0.1"
COMPONENTS = ("redis", "buffer", "inference", "trainer")

# Idle threads of a parallel loop sleep instead of spinning: the components share the cores.
# PYTHONSAFEPATH: a folder called `operator` in the working directory shadows no module.
ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "0",
    "PYTHONSAFEPATH": "1",
}


@dataclass(frozen=True, slots=True)
class Command:
    """One component's process; it is started once those in `requires` are ready."""

    name: str
    argv: tuple[str, ...]
    address: str
    probe: Literal["grpc", "redis"]
    requires: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Changes where the process must be started anew; tells nothing of the arguments."""
        content = json.dumps([self.argv, ENVIRONMENT]).encode()
        return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Ports:
    """Loopback ports by name; `http` and `grpc` are those that clients use."""

    http: int
    grpc: int
    redis: int
    buffer: int
    trainer: int


def desired_commands(
    deployment: AuroraDeployment, layout: Layout, ports: Ports, *, python: str
) -> tuple[Command, ...]:
    """The components that `deployment` wants, in the order of their start.

    Inference requires nobody: it serves without a buffer, and keeps no trajectory meanwhile.
    """
    spec = deployment.spec
    commands = []
    if spec.buffer.embedded is not None:
        commands.append(_redis(deployment, layout, ports, python))
    commands.append(_buffer(deployment, ports, python))
    commands.append(_inference(deployment, layout, ports, python))
    if not spec.trainer.suspend:
        commands.append(_trainer(deployment, layout, ports, python))
    return tuple(commands)


def target_folder(deployment: AuroraDeployment, layout: Layout) -> Path:
    return local_path(deployment.spec.target.uri, claims=layout.claims)


def initial_folder(deployment: AuroraDeployment, layout: Layout) -> Path | None:
    """The draft to begin with, where the manifest names one."""
    initial = deployment.spec.draft.initial_checkpoint
    return None if initial is None else local_path(initial.uri, claims=layout.claims)


def models_folder(deployment: AuroraDeployment, layout: Layout) -> Path:
    claim = deployment.spec.model_store.pvc.claim_name
    return layout.models(claim, deployment.metadata.name)


def _redis(deployment: AuroraDeployment, layout: Layout, ports: Ports, python: str) -> Command:
    embedded = deployment.spec.buffer.embedded
    assert embedded is not None
    flags = {
        "--dir": layout.redis,
        "--port": ports.redis,
        "--appendfsync": embedded.appendfsync,
    }
    argv = (python, "-m", "aurora_buffer", "redis", *_flags(flags))
    return Command("redis", argv, f"{HOST}:{ports.redis}", "redis")


def _buffer(deployment: AuroraDeployment, ports: Ports, python: str) -> Command:
    buffer = deployment.spec.buffer
    external = buffer.external
    address = f"{HOST}:{ports.buffer}"
    flags = {
        "--listen": address,
        "--redis-url": external.url if external else f"redis://{HOST}:{ports.redis}/0",
        "--max-age-seconds": buffer.retention.max_age_seconds,
        "--max-bytes": buffer.retention.max_size_bytes,
    }
    argv = (python, "-m", "aurora_buffer", "serve", *_flags(flags))
    return Command("buffer", argv, address, "grpc", () if external else ("redis",))


def _inference(deployment: AuroraDeployment, layout: Layout, ports: Ports, python: str) -> Command:
    spec = deployment.spec
    address = f"{HOST}:{ports.grpc}"
    flags: dict[str, object] = {
        "--target": target_folder(deployment, layout),
        "--dtype": spec.target.dtype,
        "--model-name": deployment.metadata.name,
        "--http-listen": f"{HOST}:{ports.http}",
        "--grpc-listen": address,
        "--buffer": f"{HOST}:{ports.buffer}",
        "--max-speculation-length": spec.draft.speculation_length.max,
        "--max-batch": spec.inference.max_batch,
        "--max-waiting": spec.inference.max_waiting,
        "--sample-percent": spec.buffer.privacy.sample_percent,
        "--opt-out-header": spec.buffer.privacy.opt_out_header,
    }
    if spec.inference.max_context_tokens is not None:
        flags["--max-context-tokens"] = spec.inference.max_context_tokens
    adaptive = () if spec.draft.speculation_length.adaptive else ("--no-adaptive-speculation",)
    argv = (python, "-m", "aurora_inference", *_flags(flags), *adaptive)
    return Command("inference", argv, address, "grpc")


def _trainer(deployment: AuroraDeployment, layout: Layout, ports: Ports, python: str) -> Command:
    trainer = deployment.spec.trainer
    address = f"{HOST}:{ports.trainer}"
    flags: dict[str, object] = {
        "--listen": address,
        "--buffer": f"{HOST}:{ports.buffer}",
        "--target": target_folder(deployment, layout),
        "--models": models_folder(deployment, layout),
        "--state": layout.trainer,
        "--min-new-trajectories": trainer.trigger.min_new_trajectories,
        "--min-interval-seconds": trainer.trigger.min_interval_seconds,
        "--objective": trainer.objective,
        "--learning-rate": trainer.hyperparameters.learning_rate,
        "--batch-size": trainer.hyperparameters.batch_size,
        "--steps-per-round": trainer.hyperparameters.steps_per_round,
        "--holdout-percent": trainer.holdout_percent,
    }
    initial = initial_folder(deployment, layout)
    if initial is not None:
        flags["--draft"] = initial
    argv = (python, "-m", "aurora_trainer", *_flags(flags))
    return Command("trainer", argv, address, "grpc", ("buffer",))


def _flags(values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(part for flag, value in values.items() for part in (flag, str(value)))
