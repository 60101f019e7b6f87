"""The certificates of a deployment, and who the operator is to its pods."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from contextlib import suppress
from datetime import UTC, datetime

from aurora_common.errors import ConflictError, NotFoundError
from aurora_operator.adapters.authority import (
    Data,
    due_secrets,
    issued_identity,
    operator_identity,
    secret_names,
)
from aurora_operator.adapters.kubernetes import ApiRefusedError, Json, KubernetesApi
from aurora_operator.cluster.directory import Tracked
from aurora_operator.cluster.kinds import CERTIFICATE, INSTANCE, SECRET, SELECTOR, is_owned_by
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.certificate import OPERATOR, authority_name, leaf_name
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.issuance import is_issued, issuance_problems
from aurora_operator.domain.plan.observation import Problem

# Secrets are not watched: so often is looked whether all are there and none is due.
_LOOK_SECONDS = 500.0
# cert-manager takes a moment to issue.
_ISSUE_SECONDS = 2.0


class Credentials:
    """Keeps a deployment's Secrets, which are read by their names and in no other way."""

    def __init__(self, api: KubernetesApi, metrics: Metrics) -> None:
        self._api = api
        self._metrics = metrics

    async def bring(
        self, tracked: Tracked, deployment: AuroraDeployment, generation: int, *, is_new: bool
    ) -> list[Problem]:
        """Writes what is due, and notes the operator's identity and when to look again.

        `is_new`: there is hardly any Secret yet, so none is asked for before the first is made.
        """
        is_due = time.monotonic() >= tracked.certificates_due
        if tracked.certified_generation == generation and not is_due:
            return []
        problems: list[Problem] = []
        seconds = _LOOK_SECONDS
        match deployment.spec.security.tls.mode:
            case "SelfManaged":
                problems = await self._issue(tracked, deployment, is_new=is_new)
            case "CertManager":
                problems, is_whole = await self._follow(tracked, deployment)
                # What was just asked for, cert-manager has hardly seen.
                if tracked.certified_generation != generation or not is_whole:
                    seconds = _ISSUE_SECONDS
            case "Disabled":
                tracked.identity = None
        tracked.certificates_due = time.monotonic() + seconds
        tracked.certified_generation = None if problems else generation
        return problems

    async def _issue(
        self, tracked: Tracked, deployment: AuroraDeployment, *, is_new: bool
    ) -> list[Problem]:
        names = secret_names(tracked.key.name)
        if is_new:
            with suppress(ConflictError):
                return await self._issue_over(tracked, deployment, dict.fromkeys(names))
        found = await asyncio.gather(*(self._read(tracked, name) for name in names))
        return await self._issue_over(tracked, deployment, dict(zip(names, found, strict=True)))

    async def _issue_over(
        self, tracked: Tracked, deployment: AuroraDeployment, existing: dict[str, Json | None]
    ) -> list[Problem]:
        """Writes what is due, given the Secrets that exist; ConflictError where others do."""
        foreign = [
            Problem(
                "NameTaken",
                f"Secret {name} exists and does not belong to this deployment: "
                "remove it, or give the deployment another name",
            )
            for name, secret in existing.items()
            if secret is not None and not is_owned_by(secret, tracked.uid)
        ]
        if foreign:
            return foreign
        contents = {name: _data(secret) for name, secret in existing.items()}
        now = datetime.now(UTC)
        for secret in due_secrets(deployment, contents, now, owner_uid=tracked.uid):
            name = secret["metadata"]["name"]
            try:
                contents[name] = _data(await self._write(secret, existing[name]))
            except (ApiRefusedError, NotFoundError) as error:
                return [Problem("ApplyRefused", f"Secret {name}: {error}")]
        authority = contents[authority_name(tracked.key.name)]
        if authority is not None:
            metadata = deployment.metadata
            tracked.identity = operator_identity(metadata, authority, tracked.identity, now)
        return []

    async def _follow(
        self, tracked: Tracked, deployment: AuroraDeployment
    ) -> tuple[list[Problem], bool]:
        """Takes over what cert-manager issued; what holds it up, and whether all is issued."""
        # In this order: what is said to be issued is in the Secret that is read then.
        certificates = await self._certificates(tracked)
        secret = leaf_name(tracked.key.name, OPERATOR)
        data = _data(await self._read(tracked, secret)) or {}
        identity = issued_identity(deployment.metadata, data)
        # While its successor is issued, nothing may be there.
        tracked.identity = identity or tracked.identity
        problems = issuance_problems(certificates, datetime.now(UTC))
        is_whole = all(map(is_issued, certificates))
        if is_whole and data and not data.get("ca.crt"):
            told = f"Secret {secret} has no ca.crt: use an issuer that names its authority"
            problems = [Problem("CertificateNotIssued", told)]
        return problems, identity is not None and is_whole

    async def _certificates(self, tracked: Tracked) -> list[Json]:
        """The deployment's Certificates; none where there is no such kind."""
        selector = f"{SELECTOR},{INSTANCE}={tracked.key.name}"
        try:
            found = await self._api.list(CERTIFICATE, tracked.key.namespace, labels=selector)
        except NotFoundError:
            return []
        return [body for body in found if is_owned_by(body, tracked.uid)]

    async def _read(self, tracked: Tracked, name: str) -> Json | None:
        try:
            return await self._api.get(SECRET, tracked.key.namespace, name)
        except NotFoundError:
            return None

    async def _write(self, secret: Json, before: Json | None) -> Json:
        """Raises ConflictError where the Secret changed since it was read, or exists after all."""
        if before is None:
            written = await self._api.apply_new(SECRET, secret)
        else:
            secret["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            written = await self._api.apply(SECRET, secret)
        self._metrics.writes.labels("apply").inc()
        return written


def _data(secret: Json | None) -> Data | None:
    """A Secret's content; what is not base64 cannot be there, and counts as empty."""
    if secret is None:
        return None
    try:
        return {name: base64.b64decode(text) for name, text in secret.get("data", {}).items()}
    except binascii.Error:
        return {}
