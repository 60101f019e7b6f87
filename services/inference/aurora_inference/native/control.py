"""The native engine as the control plane sees it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from aurora_common.errors import CheckpointError, InvalidInputError, UnavailableError
from aurora_common.store.model_store import ModelStore
from aurora_common.thread import in_background
from aurora_inference.contract import (
    Capabilities,
    Cursor,
    DraftReference,
    EngineCounters,
    EngineStatus,
    OutcomePage,
    Receipt,
    Slot,
)
from aurora_inference.native.engine import Engine
from aurora_inference.native.runner.drafter import Drafter
from aurora_inference.native.worker import EngineWorker
from aurora_inference.slots.slots import MAX_RETAINED

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A step, prefill of a long prompt's piece included, takes far less.
_ENGINE_DEADLINE_SECONDS = 30.0
# Under the operator's own, so that it hears why.
_LOAD_DEADLINE_SECONDS = 240.0
_DRAIN_POLL_SECONDS = 0.1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class NativeControl:
    """Loads drafts on a thread of their own and changes the slots between two decode steps."""

    def __init__(self, engine: Engine, worker: EngineWorker, store: ModelStore) -> None:
        self._engine = engine
        self._worker = worker
        self._store = store
        self._one_load = asyncio.Lock()
        # The newest load, which may have outlived its deadline.
        self._reading: asyncio.Future[Drafter] | None = None
        self._staging: dict[tuple[Slot, str], asyncio.Task[None]] = {}

    def problem(self) -> str:
        return self._worker.problem

    async def capabilities(self) -> Capabilities:
        return Capabilities(
            slots=2,
            assignments=("PerRequest",),
            captures=("InStep",),
            draft_kinds=self._engine.runner.draft_kinds,
            retained=MAX_RETAINED,
        )

    async def status(self) -> EngineStatus:
        return await self._between_steps(self._engine.status)

    async def counters(self) -> EngineCounters:
        return await self._between_steps(self._engine.counters)

    async def stage(self, slot: Slot, draft: DraftReference) -> None:
        """As `EngineControl.stage`; a second call for the same draft joins the first one's load."""
        if draft.digest and not _DIGEST.fullmatch(draft.digest):
            raise InvalidInputError(f"digest {draft.digest!r} is not sha256:<64 hex digits>")
        key = (slot, draft.digest or draft.uri)
        if key not in self._staging:
            task = asyncio.create_task(self._stage(slot, draft))
            self._staging[key] = task
            task.add_done_callback(partial(self._staged, key))
        # A cancelled caller does not cancel a load that another may be waiting for.
        await asyncio.shield(self._staging[key])

    def _staged(self, key: tuple[Slot, str], task: asyncio.Task[None]) -> None:
        del self._staging[key]
        if not task.cancelled():
            # Marks the exception as retrieved: the caller may have been cancelled.
            task.exception()

    async def _stage(self, slot: Slot, draft: DraftReference) -> None:
        async with self._one_load:
            if _holds(await self.status(), slot, draft):
                return
            if slot == "retained":
                await self._between_steps(partial(self._engine.slots.check_room, draft.digest))
            restage = partial(self._engine.stage_resident, slot, draft)
            if await self._between_steps(restage):
                fields = {"slot": slot, "draft": draft.name, "digest": draft.digest}
                logger.info("draft staged from memory", extra={"fields": fields})
                return
            try:
                drafter = await self._loaded(draft)
            except CheckpointError as error:
                fields = {"slot": slot, "digest": draft.digest, "reason": str(error)}
                logger.warning("draft refused", extra={"fields": fields})
                raise
            await self._between_steps(partial(self._engine.stage, slot, drafter, uri=draft.uri))
        fields = {"slot": slot, "draft": drafter.name, "digest": drafter.digest}
        logger.info("draft staged", extra={"fields": fields})

    async def _loaded(self, draft: DraftReference) -> Drafter:
        """Storage that hangs costs one thread and holds up no call beyond the deadline."""
        if self._reading is not None and not self._reading.done():
            raise UnavailableError("storage hangs: an earlier checkpoint is still being read")
        runner, store = self._engine.runner, self._store
        self._reading = in_background(
            lambda: runner.load_drafter(store.fetch(draft.uri), draft.digest)
        )
        # Nobody may be waiting any more when it ends.
        self._reading.add_done_callback(lambda reading: reading.exception())
        try:
            async with asyncio.timeout(_LOAD_DEADLINE_SECONDS):
                return await asyncio.shield(self._reading)
        except TimeoutError as error:
            raise UnavailableError(
                f"the checkpoint was not read within {_LOAD_DEADLINE_SECONDS:.0f} s"
            ) from error

    async def unstage(self) -> None:
        await self._between_steps(self._engine.unstage)

    async def release(self, digest: str) -> None:
        await self._between_steps(partial(self._engine.release, digest))

    async def promote(self, digest: str) -> Receipt:
        receipt = await self._between_steps(partial(self._engine.promote, digest))
        fields = {"digest": digest, "pause_microseconds": receipt.pause_microseconds}
        logger.info("draft promoted", extra={"fields": fields})
        return receipt

    async def split(self, rollout_id: str, candidate_bps: int, *, crossed: bool = False) -> None:
        await self._between_steps(partial(self._engine.slots.split, rollout_id, candidate_bps))

    async def outcomes(self, rollout_id: str, *, cursor: Cursor, limit: int) -> OutcomePage:
        log = self._engine.slots.outcomes
        return await self._between_steps(partial(log.page, rollout_id, cursor, limit))

    async def drain(self) -> None:
        # Only the reader's next cursor confirms that a page has arrived.
        while not await self._between_steps(self._outcomes_drained):  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    def _outcomes_drained(self) -> bool:
        return self._engine.slots.outcomes.drained

    async def _between_steps(self, operation: Callable[[], T]) -> T:
        """Runs an operation on the engine's thread; raises UnavailableError at the deadline."""
        future = self._worker.between_steps(operation)
        try:
            async with asyncio.timeout(_ENGINE_DEADLINE_SECONDS):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise UnavailableError(
                f"the engine did not answer within {_ENGINE_DEADLINE_SECONDS:.0f} s"
            ) from error


def _holds(status: EngineStatus, slot: Slot, draft: DraftReference) -> bool:
    """Whether a slot holds a draft; beside the slots, one without a digest is known by its URI."""
    if slot == "retained":
        held = [each.draft for each in status.retained]
        return any(
            each.digest == draft.digest if draft.digest else each.uri == draft.uri for each in held
        )
    found = status.stable if slot == "stable" else status.candidate
    return found is not None and found.digest == draft.digest
