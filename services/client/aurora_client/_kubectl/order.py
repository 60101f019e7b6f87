"""Commands to a rollout through the API server, answered by the operator in the status."""

from __future__ import annotations

import time
from collections.abc import Callable

from aurora_client._cli.past import ENDED
from aurora_client._cli.run import CommandError
from aurora_client._cli.terminal import show
from aurora_client._kubectl.cluster import Cluster, Json

_ANSWER_SECONDS = 30.0
_POLL_SECONDS = 0.3
_COMMAND = "aurora.dev/command"


def order(cluster: Cluster, name: str, kind: str) -> None:
    """Annotates the deployment and waits for the operator's response."""
    rollout = cluster.deployment(name).get("status", {}).get("rollout") or {}
    if not rollout or rollout["state"] in ENDED:
        raise CommandError(f"{name} has no rollout in progress: nothing to {kind}")
    request = f"{kind}/{rollout['id']}"
    cluster.patch(name, {"metadata": {"annotations": {_COMMAND: request}}})

    def answer(body: Json) -> Json | None:
        found: Json = body.get("status", {}).get("lastCommand") or {}
        return found if found.get("request") == request else None

    found = _awaited(cluster, name, answer, f"requested {request}")
    if found["outcome"] != "Done":
        raise CommandError(f"{request} was refused: {found.get('message') or 'no reason given'}")
    show(f"{request}: done")


def set_paused(cluster: Cluster, name: str, *, paused: bool) -> None:
    """Pauses or resumes by the manifest."""
    cluster.patch(name, {"spec": {"rollout": {"paused": paused}}})
    show(f"{name} {'paused' if paused else 'resumed'}")


def _awaited(
    cluster: Cluster, name: str, answer: Callable[[Json], Json | None], asked: str
) -> Json:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        if (found := answer(cluster.deployment(name))) is not None:
            return found
        time.sleep(_POLL_SECONDS)
    raise CommandError(
        f"{asked}, but got no answer within {_ANSWER_SECONDS:.0f} s: is the operator running?"
    )
