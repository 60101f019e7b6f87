"""The pool of gradient replicas, as replica 0 sees it.

A replica is used once it reports healthy. After a failed share it is excluded, with exponential
backoff, until its health is checked again. Everything runs on one event loop, except for what is
marked as callable from any thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import Tensor

from aurora_common.errors import AuroraError, UnavailableError
from aurora_common.grpc_server import MESSAGE_OPTIONS, RECONNECT_OPTIONS
from aurora_common.thread import in_background
from aurora_common.tls import CertificateFolder, Connection
from aurora_trainer.replica.call import Answer, Outgoing, answer
from aurora_trainer.replica.discovery import Place, places
from aurora_trainer.replica.servicer import GRADIENT_SERVICE
from aurora_trainer.settings import Endpoint

logger = logging.getLogger(__name__)

_DISCOVERY_SECONDS = 3.0
_RESOLVE_SECONDS = 10.0
_HEALTH_SECONDS = 5.0
_FIRST_BACKOFF_SECONDS = 2.0
_LONGEST_BACKOFF_SECONDS = 600.0
_OPTIONS = (*MESSAGE_OPTIONS, *RECONNECT_OPTIONS)


@dataclass(slots=True, eq=False)
class _Replica:
    connection: Connection
    ready: bool = False
    # The name no longer resolves to it; it may still finish a share.
    gone: bool = False
    failures: int = 0
    excluded_until: float = 0.0
    # Whether its exclusion was logged.
    logged: bool = False
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def buffers_for(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Buffers for the gradients of these weights, reused until it is excluded."""
        if {name: each.shape for name, each in self.gradients.items()} != {
            name: each.shape for name, each in weights.items()
        }:
            self.gradients = {name: torch.empty_like(each) for name, each in weights.items()}
        return self.gradients

    def cancel_calls(self) -> None:
        for call in self.calls:
            call.cancel()


class Replicas:
    """Discovers replicas and sends them shares."""

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        server_name: str | None,
        certificates: CertificateFolder | None,
        events: asyncio.AbstractEventLoop,
    ) -> None:
        self._places = partial(places, endpoints)
        self._server_name = server_name
        self._certificates = certificates
        self._events = events
        self._replicas: dict[Place, _Replica] = {}
        self._unresolved = ""
        self._known: frozenset[Place] = frozenset()
        self._ready: tuple[Place, ...] = ()

    def known(self) -> frozenset[Place]:
        """All discovered replicas, in use or not; callable from any thread."""
        return self._known

    def ready(self) -> tuple[Place, ...]:
        """The replicas that can take a share now; callable from any thread."""
        return self._ready

    def begin(
        self, shares: Mapping[Place, Outgoing], weights: Mapping[str, Tensor]
    ) -> dict[Place, Future[Answer | None]]:
        """Sends the shares; each future is the answer, or None on failure.

        Cancelling a future ends its call. For the training thread, which must not change the
        weights meanwhile.
        """
        return {
            place: asyncio.run_coroutine_threadsafe(
                self._share(place, share, weights), self._events
            )
            for place, share in shares.items()
        }

    async def run(self) -> None:
        """Discovers replicas until cancelled, which excludes all and cancels their calls."""
        try:
            while True:
                await self.refresh()
                await asyncio.sleep(_DISCOVERY_SECONDS)
        finally:
            for replica in self._replicas.values():
                replica.ready, replica.logged = False, True
                replica.cancel_calls()
            self._update_views()

    async def refresh(self) -> None:
        """Resolves the names, and checks the health of replicas that are not backing off."""
        await self._resolve()
        now = self._events.time()
        await asyncio.gather(
            *(
                self._check_health(place, replica)
                for place, replica in self._replicas.items()
                if replica.calls or now >= replica.excluded_until
            )
        )

    async def close(self) -> None:
        """Ends every call."""
        for replica in self._replicas.values():
            await replica.connection.close()

    async def _resolve(self) -> None:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await in_background(self._places)
        except (UnavailableError, TimeoutError) as error:
            reason = str(error) or f"no answer within {_RESOLVE_SECONDS:.0f} s"
            if reason != self._unresolved:
                logger.info(
                    "no replicas found; training continues alone",
                    extra={"fields": {"reason": reason}},
                )
            self._unresolved = reason
            return
        self._unresolved = ""
        for place in found:
            if place not in self._replicas:
                self._replicas[place] = _Replica(self._connection(place))
        for place, replica in tuple(self._replicas.items()):
            replica.gone = place not in found
            if replica.gone:
                replica.ready, replica.logged = False, True
            if replica.gone and not replica.calls:
                del self._replicas[place]
                await replica.connection.close()
        self._update_views()

    def _connection(self, place: Place) -> Connection:
        return Connection(
            place,
            certificates=self._certificates,
            options=_OPTIONS,
            server_name=self._server_name,
        )

    async def _check_health(self, place: Place, replica: _Replica) -> None:
        stub = health_pb2_grpc.HealthStub(replica.connection.channel())
        request = health_pb2.HealthCheckRequest(service=GRADIENT_SERVICE)
        try:
            health = await stub.Check(request, timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._exclude(place, replica, _reason(error))
            # Calls to a node that vanished would never end. One that refuses may be stopping, and
            # finishes its share first.
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                replica.cancel_calls()
            return
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            self._exclude(place, replica, "not serving")
            return
        if replica.ready or replica.gone or self._events.time() < replica.excluded_until:
            return
        replica.ready, replica.logged = True, False
        self._update_views()
        logger.info("replica in use", extra={"fields": {"replica": place}})

    async def _share(
        self, place: Place, share: Outgoing, weights: Mapping[str, Tensor]
    ) -> Answer | None:
        replica = self._replicas.get(place)
        if replica is None or not replica.ready:
            return None
        call = asyncio.current_task()
        assert call is not None
        replica.calls.add(call)
        try:
            found = await answer(
                replica.connection.channel(), share, weights, into=replica.buffers_for(weights)
            )
        except asyncio.CancelledError:
            self._back_off(place, replica, "no answer in time")
            raise
        except Exception as error:  # noqa: BLE001 - request boundary; replica 0 takes over
            self._back_off(place, replica, _reason(error))
            return None
        finally:
            replica.calls.discard(call)
        replica.failures = 0
        return found

    def _back_off(self, place: Place, replica: _Replica, reason: str) -> None:
        backoff = min(_FIRST_BACKOFF_SECONDS * 2**replica.failures, _LONGEST_BACKOFF_SECONDS)
        replica.failures = min(replica.failures + 1, 16)
        replica.excluded_until = self._events.time() + backoff
        self._exclude(place, replica, reason)

    def _exclude(self, place: Place, replica: _Replica, reason: str) -> None:
        replica.ready = False
        # They are as large as the draft.
        replica.gradients = {}
        self._update_views()
        if not replica.logged:
            logger.warning(
                "replica excluded", extra={"fields": {"replica": place, "reason": reason}}
            )
        replica.logged = True

    def _update_views(self) -> None:
        self._known = frozenset(self._replicas)
        self._ready = tuple(place for place, each in self._replicas.items() if each.ready)


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) if isinstance(error, AuroraError) else repr(error)
