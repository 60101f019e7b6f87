"""Commands to a rollout, and whether they apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aurora_common.errors import ConflictError, InvalidInputError, NotFoundError
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.rollout.state import Promoting
from aurora_operator.domain.status.deployment import Status

# How much of a request the status repeats.
REQUEST_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Command:
    """Abort and promote name the rollout that they apply to.

    `request` is the annotation's text, if it came as one: the status answers it, and a request that
    is already answered is not carried out again.
    """

    kind: Literal["pause", "resume", "abort", "promote", "unknown"]
    rollout_id: str = ""
    request: str = ""


def parse_request(request: str) -> Command | None:
    """Parses `abort/<rollout id>` or `promote/<rollout id>`; None for an empty text."""
    if not request:
        return None
    kind, _, rollout_id = request.partition("/")
    request = request[:REQUEST_CHARACTERS]
    if kind == "abort" and rollout_id:
        return Command("abort", rollout_id, request)
    if kind == "promote" and rollout_id:
        return Command("promote", rollout_id, request)
    return Command("unknown", request=request)


def checked(command: Command, deployment: AuroraDeployment, status: Status) -> Command:
    """The command with the id of the rollout that it applies to.

    Raises InvalidInputError, NotFoundError or ConflictError if it does not apply.
    """
    match command.kind:
        case "unknown":
            raise InvalidInputError(
                f"{command.request!r} is no command: use abort/<rollout id> or promote/<rollout id>"
            )
        case "resume" if deployment.spec.rollout.paused:
            raise ConflictError("the manifest pauses rollouts: set spec.rollout.paused: false")
        # Whatever was paused may have ended since: the next one must not stay paused.
        case "resume" if status.paused and not command.rollout_id:
            return command
        case "resume" if not status.paused:
            raise ConflictError("nothing is paused: nothing to resume")
        case _:
            return Command(command.kind, _meant(command, status), command.request)


def _meant(command: Command, status: Status) -> str:
    """The id of the rollout that the command applies to."""
    rollout = status.live_rollout
    if rollout is None:
        raise ConflictError(f"no rollout is in progress: nothing to {command.kind}")
    if command.rollout_id not in ("", rollout.id):
        raise NotFoundError(f"rollout {command.rollout_id!r} is not in progress; {rollout.id!r} is")
    if command.kind == "promote" and rollout.plan.dry_run:
        raise ConflictError(
            f"rollout {rollout.id!r} is a dry run, whose candidate is nowhere staged: set "
            "spec.rollout.dryRun: false for the next one"
        )
    if command.kind == "abort" and isinstance(rollout.state, Promoting):
        raise ConflictError(f"rollout {rollout.id!r} is being promoted: too late to abort")
    return rollout.id
