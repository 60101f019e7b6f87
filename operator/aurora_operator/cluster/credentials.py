"""The certificates of a deployment, and the operator's own towards its pods."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from contextlib import suppress
from datetime import UTC, datetime

from aurora_common.errors import ConflictError, NotFoundError
from aurora_operator.adapters.api_error import ApiRefusedError
from aurora_operator.adapters.authority import (
    Data,
    due_secrets,
    issued_identity,
    operator_identity,
    secret_names,
)
from aurora_operator.adapters.kubernetes import Json, KubernetesApi
from aurora_operator.cluster.directory import Tracked
from aurora_operator.cluster.kinds import (
    ADOPT,
    CERTIFICATE,
    INSTANCE,
    SECRET,
    SELECTOR,
    Reference,
    is_owned_by,
)
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.domain.certificate import OPERATOR, authority_name, leaf_name
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.objects.issuance import is_issued, issuance_problems
from aurora_operator.domain.plan.observation import Problem

# Poll interval for due certificates.
_CHECK_SECONDS = 500.0
# Poll interval while cert-manager issues.
_ISSUE_SECONDS = 2.0


class Credentials:
    """Reconciles a deployment's Secrets, which are only ever read by name."""

    def __init__(self, api: KubernetesApi, metrics: Metrics) -> None:
        self._api = api
        self._metrics = metrics

    async def reconcile(
        self, tracked: Tracked, deployment: AuroraDeployment, generation: int, *, is_new: bool
    ) -> list[Problem]:
        """Writes what is due, and sets the operator's identity and the time of the next check.

        `is_new`: the Secrets are created without reading them first.
        """
        is_due = time.monotonic() >= tracked.certificates_due
        if tracked.certified_generation == generation and not is_due:
            return []
        tracked.secrets = {}
        problems: list[Problem] = []
        seconds = _CHECK_SECONDS
        match deployment.spec.security.tls.mode:
            case "SelfManaged":
                problems = await self._issue(tracked, deployment, is_new=is_new)
            case "CertManager":
                problems, all_issued = await self._follow(tracked, deployment)
                # cert-manager has not seen yet what was just requested.
                if tracked.certified_generation != generation or not all_issued:
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
        """Writes what is due, given the existing Secrets; ConflictError if they changed."""
        foreign = [
            name_taken(Reference(SECRET.kind, name))
            for name, secret in existing.items()
            if secret is not None and not tracked.owns(secret)
        ]
        if foreign:
            return foreign
        contents = {name: _data(secret) for name, secret in existing.items()}
        current = dict(existing)
        adopted = {
            name
            for name, secret in existing.items()
            if secret is not None and not is_owned_by(secret, tracked.uid)
        }
        now = datetime.now(UTC)
        for secret in due_secrets(
            deployment, contents, now, owner_uid=tracked.uid, adopted=adopted
        ):
            name = secret["metadata"]["name"]
            try:
                current[name] = await self._write(secret, existing[name])
            except (ApiRefusedError, NotFoundError) as error:
                return [Problem("ApplyRefused", f"Secret {name}: {error}")]
        tracked.secrets = {
            name: secret["metadata"]["resourceVersion"]
            for name, secret in current.items()
            if secret is not None
        }
        authority = _data(current[authority_name(tracked.key.name)])
        if authority is not None:
            metadata = deployment.metadata
            tracked.identity = operator_identity(metadata, authority, tracked.identity, now)
        return []

    async def _follow(
        self, tracked: Tracked, deployment: AuroraDeployment
    ) -> tuple[list[Problem], bool]:
        """Reads what cert-manager issued; returns the problems, and whether all is issued."""
        # In this order: once a Certificate is Ready, its Secret holds what was issued.
        certificates = await self._certificates(tracked)
        secret = leaf_name(tracked.key.name, OPERATOR)
        data = _data(await self._read(tracked, secret)) or {}
        identity = issued_identity(deployment.metadata, data)
        # The Secret may be empty while the successor is being issued.
        tracked.identity = identity or tracked.identity
        problems = issuance_problems(certificates, datetime.now(UTC))
        all_issued = all(map(is_issued, certificates))
        if all_issued and data and not data.get("ca.crt"):
            message = f"Secret {secret} has no ca.crt: use an issuer that names its authority"
            problems = [Problem("CertificateNotIssued", message)]
        return problems, identity is not None and all_issued

    async def _certificates(self, tracked: Tracked) -> list[Json]:
        """The deployment's Certificates; none if the kind is not installed."""
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
        """Raises ConflictError if the Secret changed since it was read, or was created since."""
        if before is None:
            written = await self._api.apply_new(SECRET, secret)
        else:
            secret["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
            written = await self._api.apply(SECRET, secret)
        self._metrics.writes.labels("apply").inc()
        return written


def name_taken(place: Reference) -> Problem:
    """The problem of an object that another owner has."""
    return Problem(
        "NameTaken",
        f"{place} exists and does not belong to this deployment: "
        "remove it, give the deployment another name, or, if an earlier deployment of this name "
        f'left it, annotate this one with {ADOPT}: "true"',
    )


def _data(secret: Json | None) -> Data | None:
    """A Secret's content; empty if it is not base64."""
    if secret is None:
        return None
    try:
        return {name: base64.b64decode(text) for name, text in secret.get("data", {}).items()}
    except binascii.Error:
        return {}
