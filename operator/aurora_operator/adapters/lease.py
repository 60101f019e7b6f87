"""Leader election by a Lease: at most one operator acts, and it knows when it no longer may.

As in client-go: the holder renews the lease; others take it once it was not renewed for its
duration, by their own clock from the moment at which they saw it change. Remote timestamps are
never compared, so clocks may differ.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol

from aurora_common.errors import AuroraError, ConflictError, NotFoundError, UnavailableError
from aurora_operator.adapters.kubernetes import Json, Kind

logger = logging.getLogger(__name__)

LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")

DURATION_SECONDS = 15
RENEW_DEADLINE_SECONDS = 10.0
RETRY_SECONDS = 2.0
# The duration of a released lease: anyone may take it at once.
_RELEASED_SECONDS = 1


class LeaseLostError(UnavailableError):
    """The lease was not renewed in time, or another holds it: stop acting at once."""


class LeaseApi(Protocol):
    async def get(self, kind: Kind, namespace: str, name: str) -> Json: ...
    async def create(self, kind: Kind, body: Json) -> Json: ...
    async def replace(self, kind: Kind, body: Json) -> Json: ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A lease as read; `changed_at` (monotonic) is when this version was first seen."""

    holder: str
    duration_seconds: float
    version: str
    changed_at: float


def seen(lease: Json, before: Seen | None, now: float) -> Seen:
    """The lease as read, with the time at which this process saw it change."""
    version = lease["metadata"]["resourceVersion"]
    spec = lease.get("spec") or {}
    same = before is not None and before.version == version
    return Seen(
        holder=spec.get("holderIdentity") or "",
        duration_seconds=float(spec.get("leaseDurationSeconds") or DURATION_SECONDS),
        version=version,
        changed_at=before.changed_at if before is not None and same else now,
    )


def verdict(lease: Seen, identity: str, now: float) -> Literal["renew", "take", "wait"]:
    """What `identity` may do about the lease."""
    if lease.holder == identity:
        return "renew"
    if not lease.holder or now >= lease.changed_at + lease.duration_seconds:
        return "take"
    return "wait"


class Election:
    """One candidate; `acquire`, then `hold`, then `release`."""

    def __init__(
        self,
        api: LeaseApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration_seconds: int = DURATION_SECONDS,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._duration_seconds = duration_seconds
        self._seen: Seen | None = None
        # When the last successful renewal was sent: others may count from then on.
        self._renewed_at = 0.0

    @property
    def holder(self) -> str:
        """Who held the lease when it was last read; empty if nobody did."""
        return "" if self._seen is None else self._seen.holder

    async def acquire(self) -> None:
        """Returns once this candidate holds the lease."""
        while True:
            asked_at = time.monotonic()
            try:
                if await self.attempt():
                    self._renewed_at = asked_at
                    logger.info("leading", extra={"fields": {"identity": self._identity}})
                    return
            except AuroraError as error:
                logger.warning(
                    "lease not read; will retry", extra={"fields": {"reason": str(error)}}
                )
            # Jitter, so that candidates do not retry in step.
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.8, 1.2))

    async def hold(self) -> None:
        """Renews until that fails for too long; only ever raises LeaseLostError."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                async with asyncio.timeout_at(
                    asyncio.get_running_loop().time()
                    + self._renewed_at
                    + RENEW_DEADLINE_SECONDS
                    - time.monotonic()
                ):
                    asked_at = time.monotonic()
                    if not await self.attempt():
                        raise LeaseLostError("another operator holds the lease")
                    self._renewed_at = asked_at
            except TimeoutError:
                pass
            except LeaseLostError:
                raise
            except AuroraError as error:
                logger.warning(
                    "lease not renewed; will retry", extra={"fields": {"reason": str(error)}}
                )
            if time.monotonic() - self._renewed_at >= RENEW_DEADLINE_SECONDS:
                raise LeaseLostError(
                    f"the lease was not renewed for {RENEW_DEADLINE_SECONDS:.0f} s"
                )

    async def release(self) -> None:
        """Releases the lease, so that the next holder need not wait; best effort."""
        try:
            lease = await self._api.get(LEASE, self._namespace, self._name)
            spec = lease["spec"]
            if spec.get("holderIdentity") != self._identity:
                return
            spec |= {"holderIdentity": "", "leaseDurationSeconds": _RELEASED_SECONDS}
            await self._api.replace(LEASE, lease)
        except AuroraError as error:
            logger.warning("lease not released", extra={"fields": {"reason": str(error)}})

    async def attempt(self) -> bool:
        """Tries once to take or renew the lease; whether this candidate holds it now."""
        try:
            lease = await self._api.get(LEASE, self._namespace, self._name)
        except NotFoundError:
            return await self._create()
        now = time.monotonic()
        self._seen = seen(lease, self._seen, now)
        decision = verdict(self._seen, self._identity, now)
        if decision == "wait":
            return False
        spec = lease.get("spec") or {}
        moment = _moment()
        if decision == "take":
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = (spec.get("leaseTransitions") or 0) + 1
        lease["spec"] = spec | {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration_seconds,
            "renewTime": moment,
        }
        try:
            # The update names the version that was read: of two candidates, one succeeds.
            self._seen = seen(await self._api.replace(LEASE, lease), None, now)
        except ConflictError:
            return False if decision == "take" else await self._attempt_again()
        return True

    async def _attempt_again(self) -> bool:
        """After a lost answer the newer version may be our own: reads who holds the lease."""
        lease = await self._api.get(LEASE, self._namespace, self._name)
        self._seen = seen(lease, self._seen, time.monotonic())
        return self._seen.holder == self._identity

    async def _create(self) -> bool:
        moment = _moment()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": self._duration_seconds,
            "acquireTime": moment,
            "renewTime": moment,
            "leaseTransitions": 0,
        }
        body = {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"namespace": self._namespace, "name": self._name},
            "spec": spec,
        }
        try:
            await self._api.create(LEASE, body)
        except ConflictError:
            return False
        return True


def _moment() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
