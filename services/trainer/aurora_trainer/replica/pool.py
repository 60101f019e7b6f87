"""The gradient replicas as replica 0 knows them: who answers, who is left out, and until when.

A replica is used once its health is good. From the first share that fails it rests, the longer the
more failed in a row, and is asked again. All on one event loop but for what any thread may call.
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
from aurora_common.tls import CertificateFolder, Connection
from aurora_trainer.replica.background import in_background
from aurora_trainer.replica.call import Answer, Outgoing, answer
from aurora_trainer.replica.discovery import Place, places
from aurora_trainer.replica.servicer import GRADIENT_SERVICE
from aurora_trainer.settings import Endpoint

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 3.0
_RESOLVE_SECONDS = 10.0
_HEALTH_SECONDS = 5.0
_FIRST_REST_SECONDS = 2.0
_LONGEST_REST_SECONDS = 600.0
_OPTIONS = (*MESSAGE_OPTIONS, *RECONNECT_OPTIONS)


@dataclass(slots=True, eq=False)
class _Replica:
    connection: Connection
    ready: bool = False
    # Its name leads elsewhere now; it may still end a share.
    gone: bool = False
    failures: int = 0
    rests_until: float = 0.0
    # Whether somebody was told that it is not used.
    told: bool = False
    calls: set[asyncio.Task[Any]] = field(default_factory=set)
    room: dict[str, Tensor] = field(default_factory=dict)

    def room_for(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Where its gradients of these weights go to, the same until it is left out."""
        if {name: each.shape for name, each in self.room.items()} != {
            name: each.shape for name, each in weights.items()
        }:
            self.room = {name: torch.empty_like(each) for name, each in weights.items()}
        return self.room

    def cancel_calls(self) -> None:
        for call in self.calls:
            call.cancel()


class Replicas:
    """Finds replicas and has them compute."""

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
        """Who is there, also those who are not used; any thread may ask."""
        return self._known

    def ready(self) -> tuple[Place, ...]:
        """Who can be given a share now; any thread may ask."""
        return self._ready

    def begin(
        self, shares: Mapping[Place, Outgoing], weights: Mapping[str, Tensor]
    ) -> dict[Place, Future[Answer | None]]:
        """Sends the shares; each future is its answer, None where it failed. Cancelling one ends
        its call. For the training thread, which must not change the weights meanwhile."""
        return {
            place: asyncio.run_coroutine_threadsafe(
                self._share(place, share, weights), self._events
            )
            for place, share in shares.items()
        }

    async def run(self) -> None:
        """Looks for replicas until cancelled; from then on nobody is ready and no call goes on."""
        try:
            while True:
                try:
                    await self.look()
                except Exception:
                    logger.exception("looking for replicas failed")
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            for replica in self._replicas.values():
                replica.ready, replica.told = False, True
                replica.cancel_calls()
            self._tell()

    async def look(self) -> None:
        """Asks who is there, and all but those who rest for their health."""
        await self._find()
        now = self._events.time()
        await asyncio.gather(
            *(
                self._ask(place, replica)
                for place, replica in self._replicas.items()
                if replica.calls or now >= replica.rests_until
            )
        )

    async def close(self) -> None:
        """Ends every call."""
        for replica in self._replicas.values():
            await replica.connection.close()

    async def _find(self) -> None:
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                found = await in_background(self._places)
        except (UnavailableError, TimeoutError) as error:
            reason = str(error) or f"no answer within {_RESOLVE_SECONDS:.0f} s"
            if reason != self._unresolved:
                logger.info("no replicas are found", extra={"fields": {"reason": reason}})
            self._unresolved = reason
            return
        self._unresolved = ""
        for place in found:
            if place not in self._replicas:
                self._replicas[place] = _Replica(self._connection(place))
        for place, replica in tuple(self._replicas.items()):
            replica.gone = place not in found
            if replica.gone:
                replica.ready, replica.told = False, True
            if replica.gone and not replica.calls:
                del self._replicas[place]
                await replica.connection.close()
        self._tell()

    def _connection(self, place: Place) -> Connection:
        return Connection(
            place,
            certificates=self._certificates,
            options=_OPTIONS,
            server_name=self._server_name,
        )

    async def _ask(self, place: Place, replica: _Replica) -> None:
        stub = health_pb2_grpc.HealthStub(replica.connection.channel())
        request = health_pb2.HealthCheckRequest(service=GRADIENT_SERVICE)
        try:
            health = await stub.Check(request, timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._leave_out(place, replica, _reason(error))
            # Of a node that vanished its calls would not hear. One that refuses may be stopping,
            # and ends its share.
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                replica.cancel_calls()
            return
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            self._leave_out(place, replica, "it is not serving")
            return
        if replica.ready or replica.gone or self._events.time() < replica.rests_until:
            return
        replica.ready, replica.told = True, False
        self._tell()
        logger.info("replica is used", extra={"fields": {"replica": place}})

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
                replica.connection.channel(), share, weights, into=replica.room_for(weights)
            )
        except asyncio.CancelledError:
            self._rest(place, replica, "it did not answer in time")
            raise
        except Exception as error:  # noqa: BLE001 - the request boundary: replica 0 computes it then
            self._rest(place, replica, _reason(error))
            return None
        finally:
            replica.calls.discard(call)
        replica.failures = 0
        return found

    def _rest(self, place: Place, replica: _Replica, reason: str) -> None:
        rest = min(_FIRST_REST_SECONDS * 2**replica.failures, _LONGEST_REST_SECONDS)
        replica.failures = min(replica.failures + 1, 16)
        replica.rests_until = self._events.time() + rest
        self._leave_out(place, replica, reason)

    def _leave_out(self, place: Place, replica: _Replica, reason: str) -> None:
        replica.ready = False
        # As large as the draft.
        replica.room = {}
        self._tell()
        if not replica.told:
            logger.warning(
                "replica is left out", extra={"fields": {"replica": place, "reason": reason}}
            )
        replica.told = True

    def _tell(self) -> None:
        self._known = frozenset(self._replicas)
        self._ready = tuple(place for place, each in self._replicas.items() if each.ready)


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) if isinstance(error, AuroraError) else repr(error)
