"""The operator's port: drafts, traffic and outcomes, by mutual TLS where there are certificates."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress

from aurora.inference.v1 import inference_pb2_grpc
from aurora_common.admission import named_peers
from aurora_common.errors import AuroraError
from aurora_common.grpc_server import GrpcServer
from aurora_common.tls import CertificateFolder
from aurora_inference.api.grpc_front import SERVICE, InferenceServicer
from aurora_inference.api.serving import Gate, Serving
from aurora_inference.settings import Address

# How long the judge may take to fetch what the last requests came to.
_OUTCOMES_SECONDS = 5.0
_LOOK_SECONDS = 0.1


class ControlServer:
    """Stops after the clients' fronts: the outcomes of the requests that they drained are fetched
    here."""

    def __init__(
        self, address: Address, certificates: CertificateFolder | None, admit: Collection[str]
    ) -> None:
        """`admit`: by whose certificates it may be called, where there are any."""
        self._gate = Gate()
        self._serving: Serving | None = None
        self._server = GrpcServer(
            str(address),
            drain_seconds=1.0,
            admit=named_peers(admit, has_tls=certificates is not None),
            certificates=certificates,
        )
        self._server.add(
            inference_pb2_grpc.add_InferenceServicer_to_server, InferenceServicer(self._gate)
        )

    async def start(self) -> None:
        """Binds; every call is UNAVAILABLE until it is opened."""
        await self._server.start([SERVICE], serving=False)

    async def open(self, serving: Serving) -> None:
        self._serving = serving
        self._gate.open(serving)
        await self._server.set_serving(True)

    async def stop(self) -> None:
        """Waits, not for long, until every outcome was fetched, then ends."""
        if self._serving is not None:
            with suppress(TimeoutError, AuroraError):
                async with asyncio.timeout(_OUTCOMES_SECONDS):
                    # Nothing tells of the last call but the cursor of the next one.
                    while not await self._serving.drafts.are_outcomes_listed():  # noqa: ASYNC110
                        await asyncio.sleep(_LOOK_SECONDS)
        self._gate.close()
        await self._server.stop()
