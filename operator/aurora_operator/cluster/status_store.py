"""The status subresource: written only if it differs, and only over the version that was read."""

from __future__ import annotations

from collections.abc import Callable

from aurora_common.errors import ConflictError
from aurora_operator.adapters.kubernetes import Json, KubernetesApi
from aurora_operator.cluster.directory import Directory
from aurora_operator.cluster.kinds import DEPLOYMENT, Key
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.status.deployment import Status
from aurora_operator.domain.status.status_json import STATUS, readable_part

STATUS_MANAGER = "aurora-status"

# Receives the status before and after, once it is written.
OnWritten = Callable[[Status, Status], None]


def status_of(body: Json) -> Status:
    """The status in a deployment's body, or what can be read of one that another version wrote."""
    content = body.get("status") or {}
    try:
        return STATUS.read(content, "status")
    except ValueError:
        return readable_part(content) if isinstance(content, dict) else Status()


def merge_patch(before: Json, after: Json) -> Json:
    """The JSON merge patch (RFC 7386) from one object to another, neither of which holds null."""
    patch: Json = {name: None for name in before if name not in after}
    for name, value in after.items():
        known = before.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            if inner := merge_patch(known, value):
                patch[name] = inner
        elif name not in before or known != value:
            patch[name] = value
    return patch


class ApiStatusStore:
    """One deployment's status; `version` is that of the body whose status the owner holds."""

    def __init__(
        self,
        api: KubernetesApi,
        directory: Directory,
        key: Key,
        uid: str,
        *,
        version: int,
        metrics: Metrics,
        on_written: OnWritten,
    ) -> None:
        self.version = version
        self._api = api
        self._directory = directory
        self._key = key
        self._uid = uid
        self._metrics = metrics
        self._on_written = on_written

    async def save(self, status: Status) -> None:
        """Writes the status over `version`.

        Raises ConflictError if that is no longer the newest: read again, and decide anew.
        """
        tracked = self._directory.get(self._key)
        if tracked is None or tracked.uid != self._uid:
            return
        if tracked.known.version != self.version:
            raise ConflictError("the deployment changed since its status was read")
        body = tracked.body
        patch = merge_patch(body.get("status") or {}, STATUS.write(status))
        if not patch:
            return
        answer = await self._api.patch_status(
            DEPLOYMENT,
            self._key.namespace,
            self._key.name,
            {
                "metadata": {"resourceVersion": str(self.version), "uid": self._uid},
                "status": patch,
            },
            manager=STATUS_MANAGER,
        )
        self._metrics.writes.labels("status").inc()
        before = status_of(body)
        self.version = int(answer["metadata"]["resourceVersion"])
        self._directory.remember(answer)
        self._on_written(before, status)
