"""The status to JSON and back, exactly: what is read is what was written."""

from __future__ import annotations

import json

from aurora_common.codec import codec
from aurora_operator.domain.status.deployment import Status

STATUS = codec(Status)


def status_to_json(status: Status) -> str:
    """The status, indented; absent values are left out."""
    return json.dumps(STATUS.write(status), ensure_ascii=False, indent=2)


def status_from_json(text: str | bytes) -> Status:
    """The status that `status_to_json` wrote; raises ValueError for anything else."""
    return STATUS.read(json.loads(text), "status")
