"""The asyncio client of the operator service."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable
from typing import Self

from aurora_client import _operator_calls as calls
from aurora_client._async_channel import AsyncChannel
from aurora_client._deployment import Deployment, PublishedDraft, RolloutState
from aurora_client._errors import DeadlineExceededError
from aurora_client._policy import DEFAULT_RETRY, DEFAULT_TIMEOUT, Retry, Timeout
from aurora_client._stream import AsyncStream


class AsyncOperatorClient:
    """An asyncio client of one deployment's operator, at `host:port`.

    Bound to the event loop of its first call. `jitter` returns a number in [0, 1) that spreads the
    pauses between attempts. Every call raises an AuroraClientError on failure.
    """

    rollout: AsyncRolloutCommands

    def __init__(
        self,
        address: str,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._channel = AsyncChannel(address, retry=retry, jitter=jitter)
        self._timeout = timeout
        self.rollout = AsyncRolloutCommands(self._channel, timeout)

    async def status(self) -> Deployment:
        """The current state of the deployment."""
        return await self._channel.one(calls.deployment(), self._timeout.call_seconds)

    def watch(self) -> AsyncStream[Deployment]:
        """Yields the deployment now and after each change, until closed.

        Raises UnavailableError if the operator goes away; start a new watch to continue.
        """
        return AsyncStream(self._watch())

    async def drafts(self) -> tuple[PublishedDraft, ...]:
        """The draft checkpoints in the model store, newest first."""
        return await self._channel.one(calls.drafts(), self._timeout.call_seconds)

    async def close(self) -> None:
        """Cancels the calls in flight and closes the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _watch(self) -> AsyncGenerator[Deployment, None]:
        shown: Deployment | None = None
        while True:
            has_answered = False
            try:
                async for deployment in self._channel.many(
                    calls.watch(), self._timeout.watch_seconds
                ):
                    has_answered = True
                    if deployment != shown:
                        shown = deployment
                        yield deployment
                return
            except DeadlineExceededError:
                if not has_answered:
                    raise


class AsyncRolloutCommands:
    """Manual commands to a rollout; an empty `rollout_id` means the one in progress.

    Each raises ConflictError if the rollout's state does not allow it.
    """

    def __init__(self, channel: AsyncChannel, timeout: Timeout) -> None:
        self._channel = channel
        self._timeout = timeout

    async def pause(self, rollout_id: str = "") -> RolloutState:
        """Holds the candidate's share of the traffic and suspends judgement."""
        return await self._command("pause", rollout_id)

    async def resume(self, rollout_id: str = "") -> RolloutState:
        """Resumes a paused rollout."""
        return await self._command("resume", rollout_id)

    async def abort(self, rollout_id: str = "") -> RolloutState:
        """Rolls back to the stable draft."""
        return await self._command("abort", rollout_id)

    async def promote(self, rollout_id: str = "") -> RolloutState:
        """Promotes the candidate without waiting for the evidence."""
        return await self._command("promote", rollout_id)

    async def _command(self, name: calls.Command, rollout_id: str) -> RolloutState:
        return await self._channel.one(calls.command(name, rollout_id), self._timeout.call_seconds)
