"""Why an autoscaler does not scale."""

from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.objects.autoscaler import autoscaler_cause

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def autoscaler(kind, status, reason, *, seconds):
    condition = {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "no metrics\n returned",
        "lastTransitionTime": (NOW - timedelta(seconds=seconds)).isoformat(),
    }
    return {"status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (autoscaler("ScalingActive", "False", "FailedGetPodsMetric", seconds=31), True),
        (autoscaler("AbleToScale", "False", "FailedGetScale", seconds=31), True),
        (autoscaler("ScalingActive", "False", "FailedGetPodsMetric", seconds=29), False),
        (autoscaler("ScalingActive", "False", "ScalingDisabled", seconds=999), False),
        (autoscaler("ScalingActive", "True", "ValidMetricFound", seconds=999), False),
        (autoscaler("ScalingLimited", "False", "DesiredWithinRange", seconds=999), False),
        ({}, False),
    ],
)
def test_it_is_told_once_it_lasts(found, told):
    words = "its HorizontalPodAutoscaler does not scale: no metrics returned"
    assert autoscaler_cause(found, NOW) == (words if told else "")
