"""Reads a deployment's status; keys that a newer operator adds are ignored."""

from __future__ import annotations

import json

from aurora_client._errors import BadResponseError
from aurora_client._status import Status
from aurora_common.codec import codec

_STATUS = codec(Status, strict=False)


def parse_status(text: str) -> Status:
    """Raises BadResponseError naming the field whose value has the wrong type."""
    try:
        content: object = json.loads(text) if text else {}
    except ValueError as error:
        raise BadResponseError("the deployment's status is not JSON") from error
    try:
        return _STATUS.read(content, "status")
    except ValueError as error:
        raise BadResponseError(f"the deployment's {error}") from error
