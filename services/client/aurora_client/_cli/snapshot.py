"""One snapshot of a deployment, from its operator and its inference server."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from aurora_client._client import AuroraClient
from aurora_client._deployment import Deployment
from aurora_client._errors import AuroraClientError
from aurora_client._inference import Counters, InferenceStatus
from aurora_client._operator_client import OperatorClient
from aurora_client._policy import Retry, Timeout

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
    """`served` is an error message if the inference server does not answer."""

    deployment: Deployment
    served: Served | str


def look(operator: str, inference: str | None) -> Snapshot:
    """Queries both; `inference` None takes the address that the deployment reports.

    Raises AuroraClientError if the operator does not answer.
    """
    with OperatorClient(operator, timeout=_TIMEOUT, retry=_ONCE) as client:
        deployment = client.status()
    address = inference or inference_address(deployment)
    if address is None:
        return Snapshot(deployment, "no inference server has an address yet")
    try:
        with AuroraClient(address, timeout=_TIMEOUT, retry=_ONCE) as server:
            return Snapshot(deployment, Served(server.status(), server.counters()))
    except AuroraClientError as error:
        return Snapshot(deployment, str(error))


def inference_address(deployment: Deployment) -> str | None:
    for component in deployment.components:
        if component.name.startswith("inference") and component.address:
            return component.address
    return None


def to_json(snapshot: Snapshot, *, indent: int | None) -> str:
    """The snapshot as JSON, on one line if `indent` is None.

    `status` is the deployment's own; `inference` is null if the server does not answer.
    """
    deployment, served = snapshot.deployment, snapshot.served
    content = {
        "name": deployment.name,
        "namespace": deployment.namespace,
        "components": [asdict(component) for component in deployment.components],
        "status": json.loads(deployment.status_json or "{}"),
        "inference": None if isinstance(served, str) else asdict(served),
    }
    return json.dumps(content, indent=indent)
