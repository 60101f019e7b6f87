"""Endpoint of a load: the gRPC API."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aurora_client._async_client import AsyncAuroraClient
from aurora_client._bench.load import Acceptance, Piece
from aurora_client._completion import Speculation
from aurora_client._request import GenerateOptions


class GrpcEndpoint:
    """Streams from `aurora.inference.v1`; the caller closes the client."""

    def __init__(self, client: AsyncAuroraClient, options: GenerateOptions) -> None:
        self._client = client
        self._options = options

    async def stream(self, prompt: str) -> AsyncIterator[Piece]:
        async with self._client.generate(prompt, stream=True, **self._options) as chunks:
            async for chunk in chunks:
                yield Piece(
                    has_text=bool(chunk.token_ids),
                    output_tokens=chunk.usage.completion_tokens if chunk.usage else None,
                    acceptance=_acceptance(chunk.speculation) if chunk.speculation else None,
                )


def _acceptance(speculation: Speculation) -> Acceptance:
    return Acceptance(
        speculation.drafted_tokens + speculation.ngram_drafted_tokens,
        speculation.accepted_tokens + speculation.ngram_accepted_tokens,
        speculation.steps,
    )
