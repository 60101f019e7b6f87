"""Aurora's client: generate, watch the drafts learn, steer rollouts.

    with AuroraClient("127.0.0.1:9000") as client:
        for chunk in client.generate("SELECT", max_tokens=32, stream=True):
            print(chunk.text, end="")

AuroraClient talks to an inference server, OperatorClient to a deployment's operator; each has an
asyncio twin. `aurora_client.testing` has a fake server for tests.
"""

from aurora_client._async_client import AsyncAuroraClient
from aurora_client._async_operator_client import AsyncOperatorClient
from aurora_client._client import AuroraClient
from aurora_client._completion import Chunk, Completion, FinishReason, Speculation, Usage
from aurora_client._connection import Tls
from aurora_client._deployment import Component, Deployment, PublishedDraft, RolloutState
from aurora_client._errors import (
    AuroraClientError,
    BadRequestError,
    BadResponseError,
    CallCancelledError,
    ClientClosedError,
    ConflictError,
    DeadlineExceededError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ServerError,
    UnavailableError,
    UnsupportedError,
)
from aurora_client._inference import (
    ArmCounters,
    Counters,
    Draft,
    InferenceStatus,
    NgramCounters,
)
from aurora_client._operator_client import OperatorClient
from aurora_client._policy import Retry, Timeout
from aurora_client._request import GenerateOptions, GenerateRequest
from aurora_client._status import Condition, Evidence, Guardrail, PastRollout, Rollout, ServedDraft
from aurora_client._stream import AsyncStream, Stream

__all__ = [
    "ArmCounters",
    "AsyncAuroraClient",
    "AsyncOperatorClient",
    "AsyncStream",
    "AuroraClient",
    "AuroraClientError",
    "BadRequestError",
    "BadResponseError",
    "CallCancelledError",
    "Chunk",
    "ClientClosedError",
    "Completion",
    "Component",
    "Condition",
    "ConflictError",
    "Counters",
    "DeadlineExceededError",
    "Deployment",
    "Draft",
    "Evidence",
    "FinishReason",
    "GenerateOptions",
    "GenerateRequest",
    "Guardrail",
    "InferenceStatus",
    "NgramCounters",
    "NotFoundError",
    "OperatorClient",
    "OverloadedError",
    "PastRollout",
    "PermissionDeniedError",
    "PublishedDraft",
    "Retry",
    "Rollout",
    "RolloutState",
    "ServedDraft",
    "ServerError",
    "Speculation",
    "Stream",
    "Timeout",
    "Tls",
    "UnavailableError",
    "UnsupportedError",
    "Usage",
]
