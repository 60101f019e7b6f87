"""What `aurora up` tells the person who started it: a line for each change, plain in a pipe too."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import grpc

from aurora.operator.v1 import operator_pb2, operator_pb2_grpc
from aurora_operator.adapters.channel import Peer, open_channel
from aurora_operator.local.layout import Layout

_RECONNECT_SECONDS = 0.2
# These say only that a component has not got far yet.
_SILENT = ("", "starting", "not started yet", "stopping")


def say(line: str) -> None:
    """Writes a line to stderr; a reader that went away is no reason to stop."""
    with suppress(OSError):
        sys.stderr.write(f"aurora: {line}\n")
        sys.stderr.flush()


class Narrator:
    """Turns successive states of the components into lines.

    `serving` is said once, when inference is ready for the first time.
    """

    def __init__(self, serving: Sequence[str]) -> None:
        self._serving = tuple(serving)
        self._seen: dict[str, operator_pb2.Component] = {}
        # Those of which a person believes that they are ready.
        self._ready: set[str] = set()
        self._started_at = time.monotonic()

    def lines(self, components: Iterable[operator_pb2.Component]) -> Iterator[str]:
        """What changed since the last call."""
        present = {component.name: component for component in components}
        for name in sorted(self._seen.keys() - present.keys()):
            # The manifest wants it no longer, or not for a while.
            del self._seen[name]
            self._ready.discard(name)
            yield f"{name} stopped"
        for name, component in present.items():
            before = self._seen.get(name, operator_pb2.Component())
            self._seen[name] = component
            yield from self._changes(before, component)

    def _changes(
        self, before: operator_pb2.Component, now: operator_pb2.Component
    ) -> Iterator[str]:
        name, message = now.name, now.message
        if now.restarts > before.restarts:
            self._ready.discard(name)
            yield f"{name} {message or 'ended'}; restart {now.restarts}"
        elif message not in (before.message, *_SILENT) and not message.startswith("waiting for"):
            self._ready.discard(name)
            yield f"{name}: {message}"
        if now.ready and name not in self._ready:
            self._ready.add(name)
            yield f"{name} is ready after {time.monotonic() - self._started_at:.0f} s"
            if name == "inference":
                yield from self._serving
                self._serving = ()


def serving_lines(
    name: str, *, http: int, grpc: int | None, key_file: str | None = None
) -> tuple[str, ...]:
    """Where a deployment can be reached, and a command that reaches it.

    `key_file`: of an attached engine, which has its own name for its model.
    """
    also = "" if grpc is None else f", gRPC 127.0.0.1:{grpc}"
    model = {"model": name} if key_file is None else {}
    content = json.dumps({**model, "prompt": "Hello", "max_tokens": 32})
    key = "" if key_file is None else f'-H "authorization: Bearer $(cat {shlex.quote(key_file)})" '
    return (
        f"{name} serves: base_url http://127.0.0.1:{http}/v1{also}",
        f"try: curl http://127.0.0.1:{http}/v1/completions -H 'content-type: application/json' "
        f"{key}-d {shlex.quote(content)}",
    )


async def narrate(layout: Layout, narrator: Narrator) -> None:
    """Follows the operator, also over its restarts, until cancelled."""
    while True:
        with suppress(OSError, ValueError, KeyError, grpc.aio.AioRpcError):
            await _follow(json.loads(layout.operator.read_bytes())["address"], narrator)
        await asyncio.sleep(_RECONNECT_SECONDS)


async def _follow(address: str, narrator: Narrator) -> None:
    channel = open_channel(Peer(address))
    try:
        stub = operator_pb2_grpc.OperatorStub(channel)  # type: ignore[no-untyped-call]
        async for deployment in stub.WatchDeployment(operator_pb2.WatchDeploymentRequest()):
            for line in narrator.lines(deployment.components):
                say(line)
    finally:
        await channel.close(grace=None)
