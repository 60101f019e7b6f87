"""Kubernetes Events for what changed, written in the background: a lost one delays nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from aurora_common.errors import AuroraError
from aurora_operator.adapters.kubernetes import FIELD_MANAGER, Json, KubernetesApi
from aurora_operator.cluster.kinds import DEPLOYMENT, EVENT, Key
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.rollout.evidence import Evidence
from aurora_operator.domain.rollout.state import Analyzing, Ended, Promoting, RolledBack
from aurora_operator.domain.status.deployment import Rollout, Status

logger = logging.getLogger(__name__)

# Conditions that are well when they hold, and what of them is expected of a new deployment.
_GOOD = {"Ready": False, "ClientsGuarded": True}
# Progress is no news, and the others repeat what Degraded, Progressing and Ready say.
_UNREPORTED = {"Progressing", "Reconciling", "Stalled", "Suspended"}
# Of a condition that does not hold because somebody wants it so.
_CHOSEN = {"Suspended"}
_QUEUE_LIMIT = 1000
_MESSAGE_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Notice:
    """An Event's content."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def notices(before: Status, after: Status) -> tuple[Notice, ...]:
    """The Events for a changed status: for transitions, never for mere progress."""
    return (
        *_rollout_notices(before.rollout, after.rollout),
        *_watch_notices(before, after),
        *_condition_notices(before, after),
        *_command_notices(before, after),
    )


def notification_failed(cause: str) -> Notice:
    """A verdict has not reached the webhook, and will be sent again."""
    message = f"a verdict could not be sent, and will be sent again: {cause}"
    return Notice("Warning", "NotificationFailed", message)


def _rollout_notices(before: Rollout | None, after: Rollout | None) -> Sequence[Notice]:
    if after is None or _stage(before) == _stage(after):
        return ()
    state = after.state
    message = f"{after.id} ({after.candidate.draft.checkpoint}) is {type(state).__name__}"
    if isinstance(state, Analyzing):
        message += f" at {after.plan.steps_percent[state.step]}% of the traffic"
    if isinstance(state, Promoting | Ended):
        message += f": {state.reason}"
    if isinstance(state, Ended):
        message += _measured(after.evidence)
    kind: Literal["Normal", "Warning"] = "Warning" if isinstance(state, RolledBack) else "Normal"
    return (Notice(kind, f"Rollout{type(state).__name__}", message),)


def _measured(evidence: Evidence) -> str:
    """What was found of a candidate, as far as anything was."""
    found = []
    if (replay := evidence.replay) is not None and replay.requests:
        saved = f"saves {replay.saved_bps / 100:+.2f}% of verify steps{_interval(replay.ci_bps)}"
        found.append(f"{saved} by {replay.requests} requests replayed")
    if evidence.requests:
        accepted = f"{evidence.effect_bps / 100:+.2f} points of acceptance"
        accepted += _interval(evidence.ci_bps)
        found.append(f"{accepted} by {evidence.requests} live requests")
    return f" ({'; '.join(found)})" if found else ""


def _interval(bounds: tuple[int, int] | None) -> str:
    if bounds is None:
        return ""
    return f", 95% {bounds[0] / 100:+.2f} to {bounds[1] / 100:+.2f},"


def _watch_notices(before: Status, after: Status) -> Sequence[Notice]:
    """A promotion was taken back."""
    watch = before.watch
    if watch is None or after.watch is not None or after.stable != watch.former:
        return ()
    verdict = after.history[0]
    message = f"{watch.former.checkpoint} is stable again: {verdict.checkpoint} is slower"
    return (Notice("Warning", "PromotionReverted", f"{message} ({verdict.reason})"),)


def _stage(rollout: Rollout | None) -> object:
    """The part of a rollout that changes in steps."""
    if rollout is None:
        return None
    state = rollout.state
    return rollout.id, type(state), state.step if isinstance(state, Analyzing) else None


def _condition_notices(before: Status, after: Status) -> Sequence[Notice]:
    known = {condition.type: condition.status for condition in before.conditions}
    found = []
    for condition in after.conditions:
        before_it = known.get(condition.type, _GOOD.get(condition.type, False))
        if condition.type in _UNREPORTED or before_it == condition.status:
            continue
        good = condition.status == (condition.type in _GOOD) or condition.reason in _CHOSEN
        message = condition.message or f"{condition.type} is {condition.status}"
        found.append(Notice("Normal" if good else "Warning", condition.reason, message))
    return found


def _command_notices(before: Status, after: Status) -> Sequence[Notice]:
    command = after.last_command
    if command is None or command == before.last_command:
        return ()
    message = f"{command.request}: {command.message}" if command.message else command.request
    kind: Literal["Normal", "Warning"] = "Normal" if command.outcome == "Done" else "Warning"
    return (Notice(kind, f"Command{command.outcome}", message),)


class EventRecorder:
    """A bounded queue of Events; excess ones are counted and dropped."""

    def __init__(self, api: KubernetesApi, metrics: Metrics, identity: str) -> None:
        self._api = api
        self._metrics = metrics
        self._identity = identity
        self._queue: asyncio.Queue[Json] = asyncio.Queue(_QUEUE_LIMIT)

    def record(self, key: Key, uid: str, found: Sequence[Notice]) -> None:
        for notice in found:
            try:
                self._queue.put_nowait(self._event(key, uid, notice))
            except asyncio.QueueFull:
                self._metrics.events_dropped.inc()

    async def run(self) -> None:
        """Writes queued Events until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._api.create(EVENT, event)
            except AuroraError as error:
                self._metrics.events_dropped.inc()
                logger.warning(
                    "event not written; dropped", extra={"fields": {"reason": str(error)}}
                )

    def _event(self, key: Key, uid: str, notice: Notice) -> Json:
        moment = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"namespace": key.namespace, "generateName": f"{key.name}."},
            "involvedObject": {
                "apiVersion": DEPLOYMENT.api_version,
                "kind": DEPLOYMENT.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": uid,
            },
            "type": notice.type,
            "reason": notice.reason,
            "message": notice.message[:_MESSAGE_LIMIT],
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._identity,
        }
