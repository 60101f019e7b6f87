"""One snapshot of a deployment, from its operator, its inference server and its trainer."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from aurora_client._client import AuroraClient
from aurora_client._deployment import Deployment
from aurora_client._errors import AuroraClientError
from aurora_client._inference import Counters, InferenceStatus
from aurora_client._operator_client import OperatorClient
from aurora_client._policy import Retry, Timeout
from aurora_client._trainer import TrainerStatus, trainer_status

# A person is waiting.
_TIMEOUT = Timeout(call_seconds=3.0)
_ONCE = Retry(retries=0)


@dataclass(frozen=True, slots=True)
class Served:
    """The inference server's own status and counters."""

    status: InferenceStatus
    counters: Counters


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`served` is an error message if the inference server does not answer.

    `trainer` is None without a trainer that answers.
    """

    deployment: Deployment
    served: Served | str
    trainer: TrainerStatus | None = None


def look(operator: str, inference: str | None) -> Snapshot:
    """Queries all; `inference` None takes the address that the deployment reports.

    Raises AuroraClientError if the operator does not answer.
    """
    with OperatorClient(operator, timeout=_TIMEOUT, retry=_ONCE) as client:
        deployment = client.status()
    served = _served(inference or inference_address(deployment))
    return Snapshot(deployment, served, _trainer(deployment))


def _served(address: str | None) -> Served | str:
    if address is None:
        return "no inference server has an address yet"
    try:
        with AuroraClient(address, timeout=_TIMEOUT, retry=_ONCE) as server:
            return Served(server.status(), server.counters())
    except AuroraClientError as error:
        return str(error)


def _trainer(deployment: Deployment) -> TrainerStatus | None:
    address = _address(deployment, "trainer")
    if address is None:
        return None
    try:
        return trainer_status(address, retry=_ONCE, seconds=_TIMEOUT.call_seconds)
    except AuroraClientError:
        # It is starting or restarting, which its component says.
        return None


def inference_address(deployment: Deployment) -> str | None:
    return _address(deployment, "inference")


def _address(deployment: Deployment, name: str) -> str | None:
    for component in deployment.components:
        if component.name.startswith(name) and component.address:
            return component.address
    return None


def to_json(snapshot: Snapshot, *, indent: int | None) -> str:
    """The snapshot as JSON, on one line if `indent` is None.

    `status` is the deployment's own; `inference` and `trainer` are null if they do not answer.
    """
    deployment, served, trainer = snapshot.deployment, snapshot.served, snapshot.trainer
    content = {
        "name": deployment.name,
        "namespace": deployment.namespace,
        "components": [asdict(component) for component in deployment.components],
        "status": json.loads(deployment.status_json or "{}"),
        "inference": None if isinstance(served, str) else asdict(served),
        "trainer": None if trainer is None else asdict(trainer),
    }
    return json.dumps(content, indent=indent)
