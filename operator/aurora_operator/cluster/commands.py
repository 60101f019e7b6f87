"""One-shot commands by annotation: `aurora.dev/command: abort/<rollout id>` or `promote/…`."""

from __future__ import annotations

from aurora_operator.adapters.kubernetes import Json
from aurora_operator.domain.plan.command import Command, parse_request

ANNOTATION = "aurora.dev/command"


def ordered(body: Json) -> Command | None:
    """What a person orders by the annotation of a deployment; None for nothing."""
    value = body["metadata"].get("annotations", {}).get(ANNOTATION, "")
    return parse_request(value.strip())
