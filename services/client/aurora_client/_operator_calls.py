"""The operator service's calls: from arguments to a request, from a response to a value."""

from __future__ import annotations

from typing import Literal

from aurora.operator.v1 import operator_pb2 as pb
from aurora_client._call import Call
from aurora_client._deployment import Component, Deployment, PublishedDraft, RolloutState
from aurora_client._status_json import parse_status

Command = Literal["pause", "resume", "abort", "promote"]

_SERVICE = "/aurora.operator.v1.Operator/"
_COMMANDS: dict[Command, pb.CommandRolloutRequest.Command] = {
    "pause": pb.CommandRolloutRequest.COMMAND_PAUSE,
    "resume": pb.CommandRolloutRequest.COMMAND_RESUME,
    "abort": pb.CommandRolloutRequest.COMMAND_ABORT,
    "promote": pb.CommandRolloutRequest.COMMAND_PROMOTE,
}


def deployment() -> Call[pb.GetDeploymentRequest, pb.Deployment, Deployment]:
    return Call(
        _SERVICE + "GetDeployment", pb.GetDeploymentRequest(), pb.Deployment, _deployment_of
    )


def watch() -> Call[pb.WatchDeploymentRequest, pb.Deployment, Deployment]:
    return Call(
        _SERVICE + "WatchDeployment", pb.WatchDeploymentRequest(), pb.Deployment, _deployment_of
    )


def command(
    name: Command, rollout_id: str
) -> Call[pb.CommandRolloutRequest, pb.CommandRolloutResponse, RolloutState]:
    return Call(
        _SERVICE + "CommandRollout",
        pb.CommandRolloutRequest(command=_COMMANDS[name], rollout_id=rollout_id),
        pb.CommandRolloutResponse,
        lambda response: RolloutState(response.rollout_id, response.state),
        # "The one in progress" may be another one by the time of a second attempt.
        repeatable=bool(rollout_id),
    )


def drafts() -> Call[pb.ListDraftsRequest, pb.ListDraftsResponse, tuple[PublishedDraft, ...]]:
    return Call(
        _SERVICE + "ListDrafts",
        pb.ListDraftsRequest(),
        pb.ListDraftsResponse,
        lambda response: tuple(_draft_of(draft) for draft in response.drafts),
    )


def _deployment_of(message: pb.Deployment) -> Deployment:
    status = parse_status(message.status_json)
    return Deployment(
        name=message.name,
        namespace=message.namespace,
        is_paused=status.paused,
        components=tuple(_component_of(component) for component in message.components),
        status=status,
        status_json=message.status_json,
    )


def _component_of(message: pb.Component) -> Component:
    return Component(
        name=message.name,
        pid=message.pid or None,
        ready=message.ready,
        restarts=message.restarts,
        address=message.address,
        log_path=message.log_path,
        message=message.message,
    )


def _draft_of(message: pb.Draft) -> PublishedDraft:
    return PublishedDraft(
        name=message.name,
        digest=message.digest,
        parent_digest=message.parent_digest,
        trained_through=message.trained_through,
        role=message.role,
        outcome=message.outcome,
        published_at_ms=message.published_at_ms,
        acceptance=message.acceptance,
    )
