"""The blocking client of the inference service."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Literal, Self, Unpack, overload

from aurora_client import _inference_calls as calls
from aurora_client._completion import Chunk, Completion, joined
from aurora_client._connection import Tls
from aurora_client._inference import Counters, Draft, InferenceStatus
from aurora_client._policy import DEFAULT_RETRY, DEFAULT_TIMEOUT, Retry, Timeout
from aurora_client._request import GenerateOptions, GenerateRequest
from aurora_client._stream import Stream
from aurora_client._sync_channel import SyncChannel


class AuroraClient:
    """A blocking client of one inference server, at the `host:port` of its gRPC front.

    Thread-safe. `jitter` returns a number in [0, 1) that spreads the pauses between attempts.
    `token`: the bearer token, if the server requires one; `tls`: how to verify a server behind TLS.
    Every call raises an AuroraClientError on failure.
    """

    drafts: Drafts

    def __init__(
        self,
        address: str,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        token: str | None = None,
        tls: Tls | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._channel = SyncChannel(address, retry=retry, jitter=jitter, token=token, tls=tls)
        self._timeout = timeout
        self.drafts = Drafts(self._channel, timeout)

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        stream: Literal[False] = False,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        stream: Literal[True],
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Stream[Chunk]: ...

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        stream: bool = False,
        timeout: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion | Stream[Chunk]:
        """Continues `prompt`, text or token ids; with `stream`, in chunks as it is decoded.

        `timeout`: seconds for the whole completion, overriding the client's. `options` are those of
        GenerateRequest; `max_tokens` is required.
        """
        call = calls.generate(GenerateRequest(prompt=prompt, **options))
        chunks = self._channel.many(
            call, self._timeout.generate_seconds if timeout is None else timeout
        )
        if stream:
            return Stream(chunks)
        return joined(list(chunks), address=self._channel.address)

    def status(self) -> InferenceStatus:
        """What the server serves."""
        return self._channel.one(calls.status(), self._timeout.call_seconds)

    def counters(self) -> Counters:
        """The server's totals since its start."""
        return self._channel.one(calls.counters(), self._timeout.call_seconds)

    def close(self) -> None:
        """Cancels the calls in flight and closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Drafts:
    """The two draft slots of an inference server."""

    def __init__(self, channel: SyncChannel, timeout: Timeout) -> None:
        self._channel = channel
        self._timeout = timeout

    def stage(self, draft: Draft, *, slot: calls.Slot = "candidate") -> None:
        """Verifies a checkpoint and loads it into a slot; a no-op if the slot already holds it.

        Raises ConflictError with the reason if the checkpoint is refused.
        """
        self._channel.one(calls.stage(slot, draft), self._timeout.stage_seconds)

    def unstage(self) -> None:
        """Empties the candidate slot; requests in flight finish on the draft they began with."""
        self._channel.one(calls.unstage(), self._timeout.call_seconds)

    def promote(self, digest: str) -> float:
        """Makes the candidate with this digest stable; returns the pause of decoding in seconds.

        Raises ConflictError if the candidate has another digest.
        """
        return self._channel.one(calls.promote(digest), self._timeout.call_seconds)

    def set_traffic(self, candidate_bps: int, *, rollout_id: str = "") -> None:
        """Sends `candidate_bps` of 10,000 new requests to the candidate, under `rollout_id`."""
        self._channel.one(calls.set_traffic(rollout_id, candidate_bps), self._timeout.call_seconds)
