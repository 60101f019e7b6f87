"""Eight clients that stream at the same time from a vLLM, or from what stands in front of it.

They read bytes and parse nothing, so that the processors are left to what is measured.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from stock.server import KEY, MODEL

CLIENTS = 8
MAX_TOKENS = 128


class Round(NamedTuple):
    """Tokens per second of all clients, and each request's seconds to its first token."""

    tokens_per_second: float
    first_token_seconds: list[float]


async def stream(port: int, prompt: Sequence[int]) -> float:
    """Streams MAX_TOKENS tokens; the seconds to the first one."""
    body = json.dumps(
        {
            "model": MODEL,
            "prompt": list(prompt),
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    started = time.perf_counter()
    writer.write(head.encode() + body)
    status = await reader.readline()
    assert b" 200 " in status, status
    await reader.readuntil(b"data: ")
    first = time.perf_counter() - started
    await reader.readuntil(b"data: [DONE]")
    writer.close()
    return first


async def measured(port: int, prompts: Sequence[Sequence[int]]) -> Round:
    async def client(number: int) -> list[float]:
        return [await stream(port, prompt) for prompt in prompts[number::CLIENTS]]

    started = time.perf_counter()
    found = await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    seconds = time.perf_counter() - started
    return Round(MAX_TOKENS * len(prompts) / seconds, [one for each in found for one in each])
