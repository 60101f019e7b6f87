"""Checks before anything is started."""

from __future__ import annotations

import os
import shutil

from aurora_common.checkpoint import read_manifest
from aurora_common.errors import (
    CheckpointError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from aurora_common.store.model_store import ModelStore
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.manifest.spec.engine import Attach
from aurora_operator.local.layout import Layout
from aurora_operator.local.port import is_free

# The shortest limit of an operating system, macOS'.
_MAX_SOCKET_BYTES = 103


def check(deployment: AuroraDeployment, layout: Layout, store: ModelStore) -> None:
    """Raises an AuroraError if the deployment cannot run on this machine, ports aside."""
    check_secrets(deployment)
    check_socket(deployment, layout)
    check_engine(deployment)
    check_models(deployment, store)


def check_secrets(deployment: AuroraDeployment) -> None:
    """Raises InvalidInputError if the manifest refers to a Secret."""
    external = deployment.spec.buffer.external
    if external is None:
        return
    for field, reference in (
        ("urlSecretRef", external.url_secret_ref),
        ("caSecretRef", external.ca_secret_ref),
    ):
        if reference is not None:
            raise InvalidInputError(
                f"spec.buffer.external.{field} names the Secret {reference.name}, and there are "
                "none on one machine: use spec.buffer.external.url"
            )


def check_socket(deployment: AuroraDeployment, layout: Layout) -> None:
    """Raises InvalidInputError if the path of the embedded Redis' socket would be too long."""
    excess = len(os.fsencode(layout.redis_socket)) - _MAX_SOCKET_BYTES
    if deployment.spec.buffer.embedded is not None and excess > 0:
        raise InvalidInputError(
            f"the data directory {layout.root} is {excess} bytes too long for the path of a socket "
            "in it: choose a shorter one with --data-dir"
        )


def check_engine(deployment: AuroraDeployment) -> None:
    """Raises NotFoundError or InvalidInputError if the vLLM that is wanted cannot run here."""
    engine = deployment.spec.engine
    if engine.attach is not None:
        check_attached(engine.attach)
        return
    if engine.nodes > 1:
        raise InvalidInputError("spec.engine.nodes: this is one machine: leave it out")
    program = engine.executable or "vllm"
    if engine.type == "vllm" and shutil.which(program) is None:
        where = "" if "/" in program else " on PATH"
        raise NotFoundError(
            f"spec.engine: there is no program {program}{where}: install vLLM 0.32 or later, or "
            "name its program in spec.engine.executable"
        )


def check_attached(attach: Attach) -> None:
    """Raises InvalidInputError if it is in pods, NotFoundError if its key's file is missing."""
    if attach.key_file is None:
        raise InvalidInputError(
            "spec.engine.attach.selector names pods, and there are none on one machine: use url "
            "and keyFile"
        )
    if not os.access(attach.key_file, os.R_OK):
        raise NotFoundError(
            f"spec.engine.attach.keyFile: {attach.key_file} is missing or cannot be read; it must "
            "hold vLLM's --api-key"
        )


def check_models(deployment: AuroraDeployment, store: ModelStore) -> None:
    """Raises NotFoundError or CheckpointError if the target or the initial draft is missing."""
    spec = deployment.spec
    target = store.fetch(spec.target.uri)
    if not (target / "config.json").is_file():
        raise NotFoundError(f"spec.target.uri {spec.target.uri}: no model in {target}")
    initial = spec.draft.initial_checkpoint
    if initial is None:
        return
    folder = store.fetch(initial.uri)
    if not folder.is_dir():
        raise NotFoundError(
            f"spec.draft.initialCheckpoint.uri {initial.uri}: no checkpoint in {folder}"
        )
    digest = read_manifest(folder).digest
    if initial.digest not in (None, digest):
        raise CheckpointError(
            f"spec.draft.initialCheckpoint.digest is {initial.digest}, but {folder} holds {digest}"
        )


def check_ports(*, http: int, grpc: int) -> None:
    """Raises UnavailableError if another process listens on one of the clients' ports."""
    for port, flag in ((http, "--http-port"), (grpc, "--grpc-port")):
        if not is_free(port):
            raise UnavailableError(f"port {port} is taken; choose another one with {flag}")
