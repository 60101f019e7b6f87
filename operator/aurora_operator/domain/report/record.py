"""The record of an ended rollout: a JSON object that is kept beside the checkpoints."""

from __future__ import annotations

import json
from dataclasses import replace

from aurora_common.codec import codec
from aurora_operator.domain.report.report import Json, Report
from aurora_operator.domain.status.deployment import Draft, Rollout, Verdict, Watch

# Raised with each change that a reader must know of.
API_VERSION = "aurora.dev/v1alpha1"
KIND = "RolloutRecord"
_DIGITS = 12

_DRAFT = codec(Draft)
_ROLLOUT = codec(Rollout)
_VERDICT = codec(Verdict)
_WATCH = codec(Watch)


def record_name(report: Report) -> str:
    """`<number>-<12 digits of the candidate's digest>`, the same for each of its reports."""
    number, _, watch = report.verdict.id.removeprefix(f"{report.deployment}-").partition("-")
    digest = report.verdict.digest.removeprefix("sha256:")[:_DIGITS]
    return "-".join(part for part in (number, digest, watch) if part)


def record_content(report: Report) -> bytes:
    """The same bytes for the same report; neither prompts nor tokens are in it."""
    return json.dumps(_record(report), ensure_ascii=False, indent=2).encode()


def _record(report: Report) -> Json:
    record: Json = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": record_name(report),
            "namespace": report.namespace,
            "deployment": report.deployment,
            "generation": report.generation,
        },
        "verdict": _VERDICT.write(report.verdict),
        "spec": dict(report.spec),
    }
    if report.stable is not None:
        record["stable"] = _DRAFT.write(report.stable)
    if report.rollout is not None:
        # How far each inference was read is of no use afterwards.
        record["rollout"] = _ROLLOUT.write(replace(report.rollout, cursors={}))
    if report.watch is not None:
        record["watch"] = _WATCH.write(report.watch)
    return record
