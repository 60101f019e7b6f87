"""Answers an OpenAI request, whole or streamed; a client that disconnects cancels it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from aurora_common.errors import AuroraError
from aurora_inference.http.error_body import described
from aurora_inference.http.openai_request import GenerationBody
from aurora_inference.http.openai_response import (
    JsonObject,
    Reply,
    speculation,
    speculation_headers,
    usage,
)
from aurora_inference.serving.generation import Ending, Generation
from aurora_inference.serving.text_service import Question, TextService

logger = logging.getLogger(__name__)

# nginx's code for a client that has disconnected.
_CLIENT_CLOSED_REQUEST = 499


async def answer(
    text: TextService, question: Question, body: GenerationBody, reply: Reply, request: Request
) -> Response:
    """Raises AuroraError if the request is refused before anything is sent."""
    generation = text.start(question, request_id=reply.id)
    if body.stream:
        closing_usage, each_usage = body.usage_wanted()
        events = _events(generation, reply, closing_usage=closing_usage, each_usage=each_usage)
        return _EventStream(generation, events)
    try:
        ended = await _unless_disconnected(generation, request)
    finally:
        generation.cancel()
    if ended is None:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    whole, ending = ended
    return JSONResponse(reply.whole(whole, ending), headers=speculation_headers(ending.report))


async def _unless_disconnected(
    generation: Generation, request: Request
) -> tuple[str, Ending] | None:
    """The whole text and how it ended; None if the client disconnects first."""
    whole = asyncio.create_task(_whole(generation))
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({whole, gone}, return_when=asyncio.FIRST_COMPLETED)
        return whole.result() if whole.done() else None
    finally:
        whole.cancel()
        gone.cancel()


async def _whole(generation: Generation) -> tuple[str, Ending]:
    texts: list[str] = []
    async for piece in generation:
        texts.append(piece.text)
        if piece.ending is not None:
            return "".join(texts), piece.ending
    raise AssertionError("a generation ends with its ending")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _EventStream(StreamingResponse):
    """Server-sent events; however they end, the generation is cancelled."""

    def __init__(self, generation: Generation, events: AsyncIterator[bytes]) -> None:
        super().__init__(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"}
        )
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._generation.cancel()


async def _events(
    generation: Generation, reply: Reply, *, closing_usage: bool, each_usage: bool
) -> AsyncIterator[bytes]:
    """One event per engine step that yielded text, then [DONE].

    Aurora's own fields are in the last chunk, which is the one with the usage if requested.
    """
    prompt_tokens = len(generation.request.prompt_tokens)
    opening = reply.opening()
    if opening is not None:
        yield _event(opening)
    try:
        async for piece in generation:
            if not piece.text and piece.ending is None:
                continue
            chunk = reply.chunk(piece)
            if each_usage:
                chunk["usage"] = usage(prompt_tokens, piece.completion_tokens)
            if piece.ending is not None and not closing_usage:
                chunk["aurora"] = speculation(piece.ending.report)
            yield _event(chunk)
            if piece.ending is not None and closing_usage:
                yield _event(reply.closing(piece.ending))
    except Exception as error:
        if not isinstance(error, AuroraError):
            logger.exception("stream failed", extra={"fields": {"request_id": reply.id}})
        yield _event(dict(described(error)[1]))
    yield b"data: [DONE]\n\n"


def _event(body: JsonObject) -> bytes:
    return b"data: %s\n\n" % json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
