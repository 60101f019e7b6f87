"""Why a HorizontalPodAutoscaler does not scale, as its controller reports it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

# It reports that it knows no metric yet when it is new.
_STARTING = timedelta(seconds=30)
_WORKING = ("AbleToScale", "ScalingActive")
# What somebody chose.
_CHOSEN = frozenset({"ScalingDisabled"})


def autoscaler_cause(autoscaler: Mapping[str, Any], now: datetime) -> str:
    """Why it has not scaled for a while; empty if it does."""
    for condition in autoscaler.get("status", {}).get("conditions", ()):
        if condition["type"] not in _WORKING or condition["status"] != "False":
            continue
        since = datetime.fromisoformat(condition["lastTransitionTime"])
        if condition.get("reason") not in _CHOSEN and now - since > _STARTING:
            message = " ".join(str(condition.get("message", "")).split())
            return f"its HorizontalPodAutoscaler does not scale: {message}"
    return ""
