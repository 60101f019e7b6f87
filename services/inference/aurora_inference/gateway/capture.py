"""Fetches what the plugin captured of the target, and joins it to the answers by their keys."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aurora_common.errors import AuroraError, UnavailableError
from aurora_inference.gateway.plugin import Plugin
from aurora_inference.trajectory.completion import Completion, Distributions

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_BATCH_BYTES = 8 << 20
# After that an answer is recorded without a capture: the engine dropped it, or started anew.
_WAIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Capture:
    """The target's distributions at each token that the engine computed for a request."""

    key: str
    output_tokens: NDArray[np.uint32]  # [T]
    distributions: Distributions

    def at(self, output_tokens: tuple[int, ...]) -> Distributions | None:
        """Those of an answer's tokens, which may end earlier; None if they are others."""
        count = len(output_tokens)
        if not np.array_equal(self.output_tokens[:count], output_tokens):
            return None
        ids, log_probs, tail_mass = self.distributions
        return Distributions(ids[:count], log_probs[:count], tail_mass[:count])


@dataclass(frozen=True, slots=True)
class Batch:
    """`number` acknowledges it; 0 if it is empty. `more`: another one is ready."""

    number: int
    more: bool
    captures: tuple[Capture, ...]


def unpacked(payload: bytes) -> Batch:
    """A length (u32), so many bytes of JSON, then the arrays of each request, little-endian.

    Raises UnavailableError if the payload is anything else.
    """
    try:
        size = int.from_bytes(payload[:4], "little")
        header = json.loads(payload[4 : 4 + size])
        captures = tuple(_captures(header["requests"], payload, 4 + size))
        return Batch(header["batch"], header["more"], captures)
    except (LookupError, TypeError, ValueError) as error:
        raise UnavailableError(
            f"the plugin's captures cannot be read: {type(error).__name__}"
        ) from error


def _captures(requests: list[dict[str, Any]], payload: bytes, offset: int) -> Iterator[Capture]:
    for request in requests:
        count, k = request["tokens"], request["k"]
        drafted = sum(step[0] for step in request["steps"])
        arrays: list[NDArray[Any]] = []
        for kind, items in (("<u4", count * k), ("<f2", count * k), ("<f2", count), ("<u4", count)):
            arrays.append(np.frombuffer(payload, kind, items, offset))
            offset += arrays[-1].nbytes
        offset += 4 * drafted
        ids, log_probs, tail_mass, output_tokens = arrays
        distributions = Distributions(ids.reshape(count, k), log_probs.reshape(count, k), tail_mass)
        yield Capture(request["key"], output_tokens, distributions)


class Captures:
    """Holds answers until what was captured of them has come; runs on the event loop's thread."""

    def __init__(
        self,
        plugin: Plugin,
        record: Callable[[Completion], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.missing = 0
        self._plugin = plugin
        self._record = record
        self._clock = clock
        self._waiting: dict[str, tuple[Completion, float]] = {}
        self._arrived = asyncio.Event()
        self._batch = 0

    def wait_for(self, completion: Completion) -> None:
        """Records an answer as soon as its capture is there, at the latest without one."""
        self._waiting[completion.request.id] = (completion, self._clock() + _WAIT_SECONDS)
        self._arrived.set()

    async def run(self) -> None:
        """Fetches for ever, while answers wait."""
        while True:
            await self._arrived.wait()
            # A request that has just ended is still in the engine's hands.
            await asyncio.sleep(_POLL_SECONDS)
            try:
                while await self._fetch():
                    pass
            except AuroraError as error:
                fields = {"reason": str(error)}
                logger.warning("captures not fetched; will retry", extra={"fields": fields})
            self._give_up()
            if not self._waiting:
                self._arrived.clear()

    def flush(self) -> None:
        """Records what still waits without a capture."""
        for completion, _ in self._waiting.values():
            self._miss(completion)
        self._waiting.clear()

    async def _fetch(self) -> bool:
        """Joins one batch; whether there is another. What was joined is acknowledged next time."""
        batch = unpacked(
            await self._plugin.capture(max_bytes=_BATCH_BYTES, acknowledge=self._batch)
        )
        self._batch = batch.number
        for capture in batch.captures:
            completion, _ = self._waiting.pop(capture.key, (None, 0.0))
            # Others were not recorded: their clients left, or the engine failed.
            if completion is None:
                continue
            distributions = capture.at(completion.output_tokens)
            if distributions is None:
                self._miss(completion)
            else:
                self._record(replace(completion, distributions=distributions))
        return batch.more

    def _give_up(self) -> None:
        now = self._clock()
        for key, (completion, deadline) in list(self._waiting.items()):
            if now > deadline:
                del self._waiting[key]
                self._miss(completion)

    def _miss(self, completion: Completion) -> None:
        self.missing += 1
        self._record(completion)
