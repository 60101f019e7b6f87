"""A canary of an engine with one draft at a time: pairs of blocks, one for each draft."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from aurora_common.errors import AuroraError
from aurora_common.kept_running import kept_running
from aurora_inference.contract import DraftReference
from aurora_inference.gateway.ledger import Ledger
from aurora_inference.gateway.pair import Block, block_seconds, order
from aurora_inference.slots.slots import Slots

logger = logging.getLogger(__name__)

_AFTER_FAILURE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """`crossed`: this replica begins its pairs with the other arm."""

    rollout_id: str
    candidate_bps: int
    crossed: bool


class Switchback:
    """`begin` has the engine serve a block's draft."""

    def __init__(
        self,
        slots: Slots,
        ledger: Ledger,
        begin: Callable[[Block, DraftReference], Awaitable[None]],
    ) -> None:
        # What runs; None: nothing.
        self.plan: Plan | None = None
        # The number of the rollout's last pair that began.
        self.pair = 0
        self._slots = slots
        self._ledger = ledger
        self._begin = begin
        self._task: asyncio.Task[None] | None = None
        self._rollout_id = ""

    def start(self, plan: Plan) -> None:
        """Runs pair after pair until `stop`; those of a rollout are numbered through."""
        if plan.rollout_id != self._rollout_id:
            self.pair, self._rollout_id = 0, plan.rollout_id
        self.plan = plan
        self._task = asyncio.create_task(kept_running("switchback", partial(self._run, plan)))

    async def stop(self) -> None:
        """The pair in progress is lost."""
        task, self._task, self.plan = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        if self._ledger.block is not None:
            self._ledger.discard_pair(self._ledger.block)
            self._ledger.block = None

    async def _run(self, plan: Plan) -> None:
        """A pair in which the engine fails is no evidence."""
        ledger, stable, candidate = self._ledger, self._slots.stable, self._slots.candidate
        assert stable is not None
        assert candidate is not None
        digests = (stable.digest, candidate.digest)
        rate = former = 0.0
        while True:
            self.pair += 1
            pair, begun, since = self.pair, ledger.begun_requests, ledger.clock()
            seconds = block_seconds(
                plan.candidate_bps, requests_per_second=rate, former_seconds=former
            )
            former = min(seconds.values())
            for arm in order(plan.rollout_id, pair, crossed=plan.crossed):
                block = Block(plan.rollout_id, pair, arm, plan.candidate_bps, *digests)
                if not await self._begins(block):
                    ledger.discard_pair(block)
                    break
                await asyncio.sleep(seconds[arm])
            else:
                ledger.close_pair(block)
            rate = (ledger.begun_requests - begun) / (ledger.clock() - since)

    async def _begins(self, block: Block) -> bool:
        """Whether the engine serves the block's draft; False after a pause if it fails."""
        draft = self._slots.stable if block.arm == "stable" else self._slots.candidate
        assert draft is not None
        try:
            await self._begin(block, draft)
        except AuroraError as error:
            fields = {"pair": block.pair, "reason": str(error)}
            logger.warning("pair of blocks lost", extra={"fields": fields})
            await asyncio.sleep(_AFTER_FAILURE_SECONDS)
            return False
        return True
