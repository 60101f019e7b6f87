"""aurora.operator.v1 for a deployment that runs as local processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc

from aurora.operator.v1 import operator_pb2, operator_pb2_grpc
from aurora_common.errors import InvalidInputError
from aurora_common.store.published import PublishedDraft, PublishedDrafts
from aurora_operator.domain.plan.command import Command
from aurora_operator.domain.status.deployment import Status
from aurora_operator.domain.status.status_json import status_to_json
from aurora_operator.local.process import ComponentDetail
from aurora_operator.reconcile.reconciler import Reconciler

SERVICE = "aurora.operator.v1.Operator"

Context = grpc.aio.ServicerContext[object, object]
_Order = operator_pb2.CommandRolloutRequest


class Changes:
    """Notifies watchers of changes; slow ones see several changes as one."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._closed = False

    def notify(self) -> None:
        # Each watcher waits for the event that was current when it began to wait.
        self._event.set()
        self._event = asyncio.Event()

    def close(self) -> None:
        """Ends every watch."""
        self._closed = True
        self.notify()

    async def watch(self) -> AsyncIterator[None]:
        """Yields at once, then after each change, until closed."""
        while not self._closed:
            event = self._event
            yield
            await event.wait()


class OperatorServicer(operator_pb2_grpc.OperatorServicer):
    def __init__(
        self,
        reconciler: Reconciler,
        *,
        components: Callable[[], tuple[ComponentDetail, ...]],
        published: PublishedDrafts,
        changes: Changes,
    ) -> None:
        self._reconciler = reconciler
        self._components = components
        self._published = published
        self._changes = changes

    async def GetDeployment(  # noqa: N802 - gRPC's name
        self, request: operator_pb2.GetDeploymentRequest, context: Context
    ) -> operator_pb2.Deployment:
        return self._deployment()

    async def WatchDeployment(  # noqa: N802
        self, request: operator_pb2.WatchDeploymentRequest, context: Context
    ) -> AsyncIterator[operator_pb2.Deployment]:
        async for _ in self._changes.watch():
            yield self._deployment()

    async def CommandRollout(  # noqa: N802
        self, request: operator_pb2.CommandRolloutRequest, context: Context
    ) -> operator_pb2.CommandRolloutResponse:
        status = await self._reconciler.command(_command(request))
        rollout = status.rollout
        return operator_pb2.CommandRolloutResponse(
            rollout_id="" if rollout is None else rollout.id,
            state="" if rollout is None else type(rollout.state).__name__,
        )

    async def ListDrafts(  # noqa: N802
        self, request: operator_pb2.ListDraftsRequest, context: Context
    ) -> operator_pb2.ListDraftsResponse:
        status = self._reconciler.status
        drafts = [_draft(stored, status) for stored in self._published.drafts()]
        return operator_pb2.ListDraftsResponse(drafts=drafts)

    def _deployment(self) -> operator_pb2.Deployment:
        metadata = self._reconciler.generation.deployment.metadata
        return operator_pb2.Deployment(
            name=metadata.name,
            namespace=metadata.namespace,
            status_json=status_to_json(self._reconciler.status),
            components=[_component(detail) for detail in self._components()],
        )


def _command(request: operator_pb2.CommandRolloutRequest) -> Command:
    match request.command:
        case _Order.COMMAND_PAUSE:
            return Command("pause", request.rollout_id)
        case _Order.COMMAND_RESUME:
            return Command("resume", request.rollout_id)
        case _Order.COMMAND_ABORT:
            return Command("abort", request.rollout_id)
        case _Order.COMMAND_PROMOTE:
            return Command("promote", request.rollout_id)
        case _:
            raise InvalidInputError(
                f"command is {request.command}; use PAUSE, RESUME, ABORT or PROMOTE"
            )


def _component(detail: ComponentDetail) -> operator_pb2.Component:
    return operator_pb2.Component(
        name=detail.view.name,
        pid=detail.pid or 0,
        ready=detail.view.ready,
        restarts=detail.restarts,
        address=detail.address,
        log_path=detail.log_path,
        message=detail.view.message,
    )


def _draft(stored: PublishedDraft, status: Status) -> operator_pb2.Draft:
    manifest = stored.manifest
    return operator_pb2.Draft(
        name=manifest.name,
        digest=manifest.digest,
        parent_digest=manifest.parent_digest,
        trained_through=manifest.trained_through,
        role=_role(manifest.digest, status),
        outcome=_outcome(manifest.digest, status),
        published_at_ms=manifest.created_at_ms,
        acceptance=(manifest.metrics or {}).get("acceptance", 0.0),
    )


def _role(digest: str, status: Status) -> str:
    if status.stable is not None and status.stable.digest == digest:
        return "stable"
    rollout = status.live_rollout
    if rollout is not None and rollout.candidate.draft.digest == digest:
        return "candidate"
    return ""


def _outcome(digest: str, status: Status) -> str:
    for verdict in status.history:
        if verdict.digest == digest:
            return verdict.outcome
    return "Superseded" if digest in status.queue.superseded else ""
