"""A verdict as a CloudEvent 1.0 in the JSON event format, for a webhook."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC

from aurora_common.codec import codec
from aurora_operator.domain.report.report import Json, Report
from aurora_operator.domain.status.deployment import Draft, Verdict

# Of the event as a whole, attributes and data ("structured content mode").
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_TYPE = "dev.aurora.rollout"
_SOURCE = "/apis/aurora.dev/v1alpha1/namespaces/{namespace}/auroradeployments/{name}"

_DRAFT = codec(Draft)
_VERDICT = codec(Verdict)


def cloud_event(report: Report) -> bytes:
    """The event; `id` is the same each time that it is sent, and another for another verdict."""
    return json.dumps(_event(report), ensure_ascii=False).encode()


def _event(report: Report) -> Json:
    verdict = report.verdict
    # Clauses are for people; the record in the model store has all of them.
    data: Json = {
        "namespace": report.namespace,
        "deployment": report.deployment,
        "verdict": _VERDICT.write(replace(verdict, clauses=None)),
    }
    if report.stable is not None:
        data["stable"] = _DRAFT.write(report.stable)
    moment = verdict.at.astimezone(UTC)
    return {
        "specversion": "1.0",
        # A deployment that is made anew counts its rollouts from 1 again.
        "id": f"{verdict.id}-{moment:%Y%m%dT%H%M%S%fZ}",
        "source": _SOURCE.format(namespace=report.namespace, name=report.deployment),
        "type": f"{_TYPE}.{verdict.outcome.lower()}",
        "subject": verdict.id,
        "time": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": data,
    }
