"""Sends reports of ended rollouts to one place: in order, at least once, never in the way."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from aurora_common.errors import AuroraError, InvalidInputError
from aurora_common.lasting import LastingFailures
from aurora_operator.domain.plan.observation import Sent
from aurora_operator.domain.report.report import Report

logger = logging.getLogger(__name__)

_FIRST_WAIT_SECONDS = 1.0
_LAST_WAIT_SECONDS = 300.0

Deliver = Callable[[Report], Awaitable[None]]


class Outbox:
    """What is offered goes out one at a time; a failure is tried again with growing pauses.

    `deliver` has a deadline of its own and raises AuroraErrors: InvalidInputError if the report is
    refused for good, which gives it up. The status says what is left, so that a restarted operator
    goes on; what was sent and not stored yet is sent again then.
    """

    def __init__(
        self,
        name: str,
        deliver: Deliver,
        *,
        on_sent: Callable[[], None],
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`on_failure` gets the cause of the first of several failures in a row."""
        self._name = name
        self._deliver = deliver
        self._on_sent = on_sent
        self._on_failure = on_failure
        self._pending: list[Report] = []
        self._sent: set[tuple[str, object]] = set()
        self._failures = LastingFailures()
        self._task: asyncio.Task[None] | None = None

    @property
    def sent(self) -> Sent:
        """The keys of the verdicts that were delivered, as long as they are offered."""
        return frozenset(self._sent)

    @property
    def lasting_failure(self) -> str:
        """What has kept it from sending for a while, or empty."""
        return self._failures.lasting().get(self._name, "")

    def offer(self, reports: Sequence[Report]) -> None:
        """Everything that is left to send, oldest first; what is no longer left is forgotten."""
        self._sent &= {report.verdict.key for report in reports}
        self._pending = [report for report in reports if report.verdict.key not in self._sent]
        if not self._pending:
            self._failures.succeeded(self._name)
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send_all())

    async def close(self) -> None:
        """Cancels what is in progress."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _send_all(self) -> None:
        wait = _FIRST_WAIT_SECONDS
        while self._pending:
            report = self._pending[0]
            try:
                await self._deliver(report)
            except InvalidInputError as error:
                fields = {"rollout": report.verdict.id, "to": self._name, "reason": str(error)}
                logger.error("report refused; given up", extra={"fields": fields})
            except AuroraError as error:
                if wait == _FIRST_WAIT_SECONDS:
                    self._on_failure(str(error))
                self._failures.failed(self._name, str(error))
                fields = {"rollout": report.verdict.id, "to": self._name, "reason": str(error)}
                logger.warning("report not delivered; will retry", extra={"fields": fields})
                # Spread, or many deployments would ask a server that comes back at once.
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(2 * wait, _LAST_WAIT_SECONDS)
                continue
            wait = _FIRST_WAIT_SECONDS
            self._failures.succeeded(self._name)
            self._sent.add(report.verdict.key)
            self._pending = [each for each in self._pending if each.verdict.key not in self._sent]
            self._on_sent()
