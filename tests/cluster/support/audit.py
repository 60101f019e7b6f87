"""The requests that the API server received, by its audit log."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITES = frozenset(("create", "update", "patch", "delete", "deletecollection"))

# Metadata of all requests for objects, once answered.
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["*"]},
        {"level": "None", "verbs": ["get", "list", "watch"], "userGroups": ["system:masters"]},
        {"level": "Metadata"},
    ],
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `code`: the HTTP status of the response."""

    verb: str
    user: str
    agent: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int


class AuditLog:
    """Reads the audit log; an entry is written before its request is answered."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def mark(self) -> int:
        """The current end of the log, for `requests` to begin at."""
        return self._path.stat().st_size if self._path.exists() else 0

    def requests(
        self,
        since: int = 0,
        *,
        user: str = "",
        agent: str = "",
        namespace: str = "",
        verbs: Collection[str] = (),
    ) -> list[Request]:
        """The requests since a mark, filtered by user, by the beginning of the agent, and so on."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(since)
            lines = file.read().splitlines()
        found = [_request(json.loads(line)) for line in lines]
        return [
            request
            for request in found
            if (not user or request.user == user)
            and request.agent.startswith(agent)
            and (not namespace or request.namespace == namespace)
            and (not verbs or request.verb in verbs)
        ]

    def writes(self, since: int = 0, *, user: str = "", namespace: str = "") -> list[Request]:
        return self.requests(since, user=user, namespace=namespace, verbs=WRITES)


def _request(event: dict[str, Any]) -> Request:
    target = event.get("objectRef", {})
    return Request(
        verb=event["verb"],
        user=event["user"].get("username", ""),
        agent=event.get("userAgent", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=event.get("responseStatus", {}).get("code", 0),
    )
