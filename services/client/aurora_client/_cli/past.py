"""The rollouts of a deployment, the one in progress included, and how one is found."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal

import yaml

from aurora_client._cli.run import CommandError
from aurora_client._cli.shape import short_digest
from aurora_client._status import PastRollout, Rollout, Status
from aurora_common.codec import codec

Output = Literal["json", "yaml"]

ENDED = frozenset({"Promoted", "RolledBack", "Inconclusive", "WouldPromote", "WouldRollBack"})
_PAST = codec(PastRollout, strict=False)
_LISTED = 5
# Of a digest, as many hex digits as tell two apart.
_PREFIX = re.compile(r"(sha256:)?[0-9a-f]{6,64}")


def rollouts(status: Status) -> tuple[PastRollout, ...]:
    """Newest first; one in progress has its state for an outcome, and no end."""
    live = status.rollout
    if live is None or live.state in ENDED:
        return status.history
    return (_so_far(live), *status.history)


def found(status: Status, wanted: str) -> PastRollout:
    """The newest rollout with this id, of a checkpoint of this name, or of one whose digest begins
    so; the newest of all if `wanted` is empty. Raises CommandError if there is none.
    """
    known = rollouts(status)
    if not known:
        raise CommandError("no rollout yet: a first one begins once the trainer has published")
    if not wanted:
        return known[0]
    for one in known:
        if wanted in (one.id, one.checkpoint) or _is_digest(wanted, one.digest):
            return one
    raise CommandError(_unknown(status, wanted, known))


def evidence_of(status: Status, past: PastRollout) -> Rollout | None:
    """The rollout with all of its evidence; None once another one has begun."""
    rollout = status.rollout
    return rollout if rollout is not None and rollout.id == past.id else None


def write(content: PastRollout | Sequence[PastRollout], output: Output) -> None:
    """Prints one or several, each as the status keeps those that ended."""
    written: Any = (
        _PAST.write(content)
        if isinstance(content, PastRollout)
        else [_PAST.write(one) for one in content]
    )
    if output == "json":
        sys.stdout.write(json.dumps(written, indent=2) + "\n")
    else:
        yaml.safe_dump(written, sys.stdout, sort_keys=False)


def _so_far(rollout: Rollout) -> PastRollout:
    evidence, draft = rollout.evidence, rollout.candidate
    replay = None if evidence is None else evidence.replay
    return PastRollout(
        id=rollout.id,
        checkpoint="" if draft is None else draft.checkpoint,
        digest="" if draft is None else draft.digest,
        outcome=rollout.state,
        reason=rollout.reason,
        effect_bps=0 if evidence is None else evidence.effect_bps,
        requests=0 if evidence is None else evidence.requests,
        saved_bps=None if replay is None else replay.saved_bps,
        replayed=None if replay is None else replay.requests,
        started_at=rollout.started_at,
        saved_ci_bps=None if replay is None else replay.interval_bps,
        effect_ci_bps=None if evidence is None else evidence.interval_bps,
        clauses=rollout.clauses,
    )


def _is_digest(wanted: str, digest: str) -> bool:
    if _PREFIX.fullmatch(wanted) is None:
        return False
    return digest.removeprefix("sha256:").startswith(wanted.removeprefix("sha256:"))


def _unknown(status: Status, wanted: str, known: Sequence[PastRollout]) -> str:
    queue = status.queue
    if queue is not None:
        waiting = queue.waiting
        if waiting is not None and (
            wanted == waiting.checkpoint or _is_digest(wanted, waiting.digest)
        ):
            return f"{waiting.checkpoint} has no rollout yet: it is the next one"
        for digest in queue.superseded:
            if _is_digest(wanted, digest):
                return (
                    f"{short_digest(digest)} never had a rollout: a newer draft was published first"
                )
    ids = [one.id for one in known]
    more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
    return (
        f"no rollout {wanted!r}: name an id, a checkpoint, or at least 6 digits of a digest; known "
        f"are {', '.join(ids[:_LISTED])}{more}"
    )
