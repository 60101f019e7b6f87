"""The gradient replicas as replica 0 knows them: who answers, who is left out, and until when.

A replica is used once its health is good, and left out from the first share that fails until it is
asked again, so that a step waits for a missing replica once at most. All on one event loop; what
the training thread may use says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

import grpc
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc
from torch import Tensor

from aurora_common.errors import AuroraError, UnavailableError
from aurora_common.grpc_server import MESSAGE_OPTIONS
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
_LONGEST_REST_SECONDS = 60.0
_OPTIONS = (
    *MESSAGE_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


@dataclass(slots=True, eq=False)
class _Replica:
    connection: Connection
    ready: bool = False
    failures: int = 0
    rests_until: float = 0.0
    # Whether somebody was told that it is not used.
    told: bool = False
    calls: set[asyncio.Task[Answer | None]] = field(default_factory=set)
    _room: dict[str, Tensor] = field(default_factory=dict)

    def room_for(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Where its gradients of these weights go to, each time the same."""
        if {name: each.shape for name, each in self._room.items()} != {
            name: each.shape for name, each in weights.items()
        }:
            self._room = {name: torch.empty_like(each) for name, each in weights.items()}
        return self._room


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
        self._ready: tuple[Place, ...] = ()

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
        """Looks for replicas until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Asks who is there, and those who are not used whether they can be."""
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
                connection = Connection(
                    place,
                    certificates=self._certificates,
                    options=_OPTIONS,
                    server_name=self._server_name,
                )
                self._replicas[place] = _Replica(connection)
        for place in self._replicas.keys() - set(found):
            await self._forget(place)
        now = self._events.time()
        there = [(place, self._replicas[place]) for place in found]
        await asyncio.gather(
            *(
                self._ask(place, replica)
                for place, replica in there
                if not replica.ready and now >= replica.rests_until
            )
        )

    async def close(self) -> None:
        """Ends every call."""
        for replica in self._replicas.values():
            await replica.connection.close()

    async def _ask(self, place: Place, replica: _Replica) -> None:
        stub = health_pb2_grpc.HealthStub(replica.connection.channel())
        request = health_pb2.HealthCheckRequest(service=GRADIENT_SERVICE)
        try:
            health = await stub.Check(request, timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError as error:
            self._leave_out(place, replica, _reason(error))
            return
        if health.status != health_pb2.HealthCheckResponse.SERVING:
            self._leave_out(place, replica, "it is not serving")
            return
        replica.ready, replica.told = True, False
        self._tell_ready()
        logger.info("replica is used", extra={"fields": {"replica": place}})

    async def _forget(self, place: Place) -> None:
        replica = self._replicas[place]
        replica.ready = False
        self._tell_ready()
        # One that is stopping may end its share.
        if not replica.calls:
            del self._replicas[place]
            await replica.connection.close()

    async def _share(
        self, place: Place, share: Outgoing, weights: Mapping[str, Tensor]
    ) -> Answer | None:
        replica = self._replicas.get(place)
        if replica is None:
            return None
        call: asyncio.Task[Answer | None] = asyncio.create_task(
            self._answer(place, replica, share, weights)
        )
        replica.calls.add(call)
        call.add_done_callback(replica.calls.discard)
        return await call

    async def _answer(
        self, place: Place, replica: _Replica, share: Outgoing, weights: Mapping[str, Tensor]
    ) -> Answer | None:
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
        replica.failures = 0
        return found

    def _rest(self, place: Place, replica: _Replica, reason: str) -> None:
        rest = min(_FIRST_REST_SECONDS * 2**replica.failures, _LONGEST_REST_SECONDS)
        replica.failures = min(replica.failures + 1, 16)
        replica.rests_until = self._events.time() + rest
        self._leave_out(place, replica, reason)

    def _leave_out(self, place: Place, replica: _Replica, reason: str) -> None:
        replica.ready = False
        self._tell_ready()
        if not replica.told:
            logger.warning(
                "replica is left out",
                extra={"fields": {"replica": place, "reason": reason}},
            )
        replica.told = True

    def _tell_ready(self) -> None:
        self._ready = tuple(place for place, each in self._replicas.items() if each.ready)


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) if isinstance(error, AuroraError) else repr(error)
