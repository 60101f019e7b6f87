"""The fake's operator service: one scripted deployment; commands are recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import grpc

from aurora.operator.v1 import operator_pb2 as pb
from aurora.operator.v1 import operator_pb2_grpc as pb_grpc
from aurora_client._deployment import Component, PublishedDraft
from aurora_client._errors import ConflictError
from aurora_client.testing._book import Book, fail

# The state of a rollout in progress after each command.
_STATES = {"pause": "Paused", "resume": "Analyzing", "abort": "RolledBack", "promote": "Promoting"}


class FakeOperator(pb_grpc.OperatorServicer):
    """Serves a deployment and streams it whenever it is set."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._deployment = pb.Deployment(name="fake", namespace="default", status_json="{}")
        self._rollout_id = ""
        self.commands: list[tuple[str, str]] = []
        self.drafts: tuple[PublishedDraft, ...] = ()

    def show(self, status: Mapping[str, object], components: Sequence[Component]) -> None:
        """Replaces the deployment and wakes its watchers."""
        with self._book.changed:
            rollout = status.get("rollout")
            self._rollout_id = str(rollout.get("id", "")) if isinstance(rollout, Mapping) else ""
            self._deployment = pb.Deployment(
                name="fake",
                namespace="default",
                status_json=json.dumps(status),
                components=[_message_of(component) for component in components],
            )
            self._book.changed.notify_all()

    def GetDeployment(  # noqa: N802
        self, request: pb.GetDeploymentRequest, context: grpc.ServicerContext
    ) -> pb.Deployment:
        self._book.enter("GetDeployment", context)
        return self._deployment

    def WatchDeployment(  # noqa: N802
        self, request: pb.WatchDeploymentRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Deployment]:
        self._book.enter("WatchDeployment", context)
        context.add_callback(self._book.wake)
        shown = pb.Deployment()
        while context.is_active() and not self._book.is_stopping:
            if self._deployment is not shown:
                shown = self._deployment
                yield shown
            self._wait_for_another(shown, context)

    def _wait_for_another(self, shown: pb.Deployment, context: grpc.ServicerContext) -> None:
        self._book.wait(
            lambda: (
                self._deployment is not shown or self._book.is_stopping or not context.is_active()
            ),
            None,
        )

    def CommandRollout(  # noqa: N802
        self, request: pb.CommandRolloutRequest, context: grpc.ServicerContext
    ) -> pb.CommandRolloutResponse:
        self._book.enter("CommandRollout", context)
        name = pb.CommandRolloutRequest.Command.Name(request.command)
        command = name.removeprefix("COMMAND_").lower()
        if not self._rollout_id:
            fail(context, ConflictError("no rollout is in progress"))
        if request.rollout_id not in ("", self._rollout_id):
            fail(context, ConflictError(f"rollout {request.rollout_id} is not in progress"))
        self.commands.append((command, self._rollout_id))
        return pb.CommandRolloutResponse(rollout_id=self._rollout_id, state=_STATES[command])

    def ListDrafts(  # noqa: N802
        self, request: pb.ListDraftsRequest, context: grpc.ServicerContext
    ) -> pb.ListDraftsResponse:
        self._book.enter("ListDrafts", context)
        return pb.ListDraftsResponse(drafts=[_draft_message_of(draft) for draft in self.drafts])


def _message_of(component: Component) -> pb.Component:
    return pb.Component(
        name=component.name,
        pid=component.pid or 0,
        ready=component.ready,
        restarts=component.restarts,
        address=component.address,
        log_path=component.log_path,
        message=component.message,
    )


def _draft_message_of(draft: PublishedDraft) -> pb.Draft:
    return pb.Draft(
        name=draft.name,
        digest=draft.digest,
        parent_digest=draft.parent_digest,
        trained_through=draft.trained_through,
        role=draft.role,
        outcome=draft.outcome,
        published_at_ms=draft.published_at_ms,
        acceptance=draft.acceptance,
    )
