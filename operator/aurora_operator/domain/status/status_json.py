"""The status to JSON and back, exactly: what is read is what was written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aurora_common.codec import codec
from aurora_operator.domain.status.deployment import Status

STATUS = codec(Status)
_LENIENT = codec(Status, strict=False)
# Evidence that is understood in part would be evidence of something else.
_UNDERSTOOD_WHOLE = ("rollout", "watch")


def status_to_json(status: Status) -> str:
    """The status, indented; absent values are left out."""
    return json.dumps(STATUS.write(status), ensure_ascii=False, indent=2)


def status_from_json(text: str | bytes) -> Status:
    """The status that `status_to_json` wrote; raises ValueError for anything else."""
    return STATUS.read(json.loads(text), "status")


def readable_part(content: Mapping[str, Any]) -> Status:
    """The fields of a status that can be read, such as of one that a later operator wrote.

    Those that cannot have their defaults: a rollout of which a word is unknown is forgotten, the
    stable draft is not.
    """
    readable = {key: value for key, value in content.items() if _is_readable(key, value)}
    return _LENIENT.read(readable, "status")


def _is_readable(key: str, value: object) -> bool:
    reader = STATUS if key in _UNDERSTOOD_WHOLE else _LENIENT
    try:
        reader.read({key: value}, "status")
    except ValueError:
        return False
    return True
