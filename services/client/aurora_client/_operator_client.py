"""The blocking client of the operator service."""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Self

from aurora_client import _operator_calls as calls
from aurora_client._deployment import Deployment, PublishedDraft, RolloutState
from aurora_client._errors import DeadlineExceededError
from aurora_client._policy import DEFAULT_RETRY, DEFAULT_TIMEOUT, Retry, Timeout
from aurora_client._stream import Stream
from aurora_client._sync_channel import SyncChannel


class OperatorClient:
    """A blocking client of one deployment's operator, at `host:port`.

    Thread-safe. `jitter` returns a number in [0, 1) that spreads the pauses between attempts. Every
    call raises an AuroraClientError on failure.
    """

    rollout: RolloutCommands

    def __init__(
        self,
        address: str,
        *,
        timeout: Timeout = DEFAULT_TIMEOUT,
        retry: Retry = DEFAULT_RETRY,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._channel = SyncChannel(address, retry=retry, jitter=jitter)
        self._timeout = timeout
        self.rollout = RolloutCommands(self._channel, timeout)

    def status(self) -> Deployment:
        """The current state of the deployment."""
        return self._channel.one(calls.deployment(), self._timeout.call_seconds)

    def watch(self) -> Stream[Deployment]:
        """Yields the deployment now and after each change, until closed.

        Raises UnavailableError if the operator goes away; start a new watch to continue.
        """
        return Stream(self._watch())

    def drafts(self) -> tuple[PublishedDraft, ...]:
        """The draft checkpoints in the model store, newest first."""
        return self._channel.one(calls.drafts(), self._timeout.call_seconds)

    def close(self) -> None:
        """Cancels the calls in flight and closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self) -> Generator[Deployment, None, None]:
        shown: Deployment | None = None
        while True:
            has_answered = False
            try:
                for deployment in self._channel.many(calls.watch(), self._timeout.watch_seconds):
                    has_answered = True
                    if deployment != shown:
                        shown = deployment
                        yield deployment
                return
            except DeadlineExceededError:
                if not has_answered:
                    raise


class RolloutCommands:
    """Manual commands to a rollout; an empty `rollout_id` means the one in progress.

    Each raises ConflictError if the rollout's state does not allow it.
    """

    def __init__(self, channel: SyncChannel, timeout: Timeout) -> None:
        self._channel = channel
        self._timeout = timeout

    def pause(self, rollout_id: str = "") -> RolloutState:
        """Holds the candidate's share of the traffic and suspends judgement."""
        return self._command("pause", rollout_id)

    def resume(self, rollout_id: str = "") -> RolloutState:
        """Resumes a paused rollout."""
        return self._command("resume", rollout_id)

    def abort(self, rollout_id: str = "") -> RolloutState:
        """Rolls back to the stable draft."""
        return self._command("abort", rollout_id)

    def promote(self, rollout_id: str = "") -> RolloutState:
        """Promotes the candidate without waiting for the evidence."""
        return self._command("promote", rollout_id)

    def _command(self, name: calls.Command, rollout_id: str) -> RolloutState:
        return self._channel.one(calls.command(name, rollout_id), self._timeout.call_seconds)
