"""The operator's port: drafts, traffic and outcomes, with mutual TLS if certificates are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Generic

from aurora.inference.v1 import inference_pb2_grpc
from aurora_common.admission import named_peers
from aurora_common.errors import AuroraError
from aurora_common.grpc_server import GrpcServer
from aurora_common.tls import CertificateFolder
from aurora_inference.grpc.control_servicer import SERVICE, ControlServicer
from aurora_inference.serving.gate import B, Gate
from aurora_inference.settings import Address

# How long the operator may take to fetch the last requests' outcomes.
_DRAIN_SECONDS = 5.0


class ControlServer(Generic[B]):
    """Must stop after the clients' fronts, so that the outcomes of drained requests are fetched."""

    def __init__(
        self,
        address: Address,
        certificates: CertificateFolder | None,
        admit: Collection[str],
        servicer: Callable[[Gate[B]], ControlServicer[B]],
    ) -> None:
        """`admit`: the certificate names that may call; used only with `certificates`."""
        self._gate = Gate[B]()
        self._serving: B | None = None
        self._server = GrpcServer(
            str(address),
            drain_seconds=1.0,
            admit=named_peers(admit, has_tls=certificates is not None),
            certificates=certificates,
        )
        self._server.add(inference_pb2_grpc.add_InferenceServicer_to_server, servicer(self._gate))

    async def start(self, awaits: Callable[[], str] | None = None) -> int:
        """Binds and returns the port; until `open`, every call is UNAVAILABLE and says why."""
        if awaits is not None:
            self._gate.awaits = awaits
        return await self._server.start([SERVICE], serving=False)

    async def open(self, serving: B) -> None:
        self._serving = serving
        self._gate.open(serving)
        await self._server.set_serving(True)

    async def stop(self) -> None:
        """Waits, within a deadline, until every outcome has been fetched, then stops."""
        if self._serving is not None:
            with suppress(TimeoutError, AuroraError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._serving.engine.drain()
        self._gate.close()
        await self._server.stop()
