"""The draft slots as the control plane sees them: every call may be made twice."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_common.errors import CheckpointError, InvalidInputError
from aurora_common.store.model_store import ModelStore
from aurora_inference.api.port import Worker
from aurora_inference.api.service import engine_result
from aurora_inference.engine.request import Arm

if TYPE_CHECKING:
    from aurora_inference.engine.draft_model import DraftModel
    from aurora_inference.engine.engine import Engine
    from aurora_inference.engine.traffic import Outcome

logger = logging.getLogger(__name__)

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DEFAULT_OUTCOMES = 1000


@dataclass(frozen=True, slots=True)
class DraftReference:
    """A checkpoint by its content; `uri` is where its files lie."""

    name: str
    digest: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """What the slots hold and how the traffic is split."""

    instance: str
    stable: DraftReference | None
    candidate: DraftReference | None
    rollout_id: str
    candidate_bps: int
    speculation_length: int


@dataclass(frozen=True, slots=True)
class OutcomePage:
    """Outcomes in order; `next_after` is the cursor for those that follow."""

    instance: str
    outcomes: tuple[Outcome, ...]
    next_after: int


class DraftSlots:
    """Loads drafts on a thread of their own and changes the slots between two decode steps.

    `load(folder, digest)` verifies a checkpoint and makes it ready to serve, or raises
    CheckpointError.
    """

    def __init__(
        self, worker: Worker, load: Callable[[Path, str], DraftModel], store: ModelStore
    ) -> None:
        self._worker = worker
        self._load = load
        self._store = store
        self._one_load = asyncio.Lock()
        self._staging: dict[tuple[Arm, str], asyncio.Task[None]] = {}
        # Where the drafts in the slots came from, by digest.
        self._uris: dict[str, str] = {}
        # How far the outcomes of the rollout in progress were listed.
        self._listed = ("", 0)

    async def stage(self, slot: Arm, draft: DraftReference) -> None:
        """Loads a checkpoint into a slot; a no-op where the slot holds it already.

        An empty digest takes the checkpoint for whatever its manifest says. A second call for the
        same draft waits for the first one's load. Raises InvalidInputError or CheckpointError with
        both slots as they were.
        """
        if draft.digest and not _DIGEST.fullmatch(draft.digest):
            raise InvalidInputError(f"digest {draft.digest!r} is not sha256:<64 hex digits>")
        folder = await asyncio.to_thread(self._store.fetch, draft.uri)
        key = (slot, draft.digest or draft.uri)
        if key not in self._staging:
            task = asyncio.create_task(self._stage(slot, draft, folder))
            self._staging[key] = task
            task.add_done_callback(lambda done: self._staged(key, done))
        # A caller that goes away does not undo what another may be waiting for.
        await asyncio.shield(self._staging[key])

    def _staged(self, key: tuple[Arm, str], task: asyncio.Task[None]) -> None:
        del self._staging[key]
        if not task.cancelled():
            # Looked at, so that a refusal whose caller has gone is not reported as forgotten.
            task.exception()

    async def _stage(self, slot: Arm, draft: DraftReference, folder: Path) -> None:
        async with self._one_load:
            status = await self.status()
            held = status.stable if slot == "stable" else status.candidate
            if held is not None and held.digest == draft.digest:
                return
            try:
                model = await asyncio.to_thread(self._load, folder, draft.digest)
            except CheckpointError as error:
                fields = {"slot": slot, "digest": draft.digest, "reason": str(error)}
                logger.warning("draft refused", extra={"fields": fields})
                raise
            self._uris[model.digest] = draft.uri
            await engine_result(self._worker.run(lambda engine: engine.traffic.stage(slot, model)))
        fields = {"slot": slot, "draft": model.name, "digest": model.digest}
        logger.info("draft staged", extra={"fields": fields})

    async def unstage(self) -> None:
        """Empties the candidate slot and gives all traffic to the stable."""
        await engine_result(self._worker.run(lambda engine: engine.traffic.unstage()))

    async def promote(self, digest: str) -> int:
        """Makes the candidate the stable; the pause in microseconds. Raises ConflictError."""

        pause_microseconds = await engine_result(
            self._worker.run(lambda engine: engine.promote(digest))
        )
        fields = {"digest": digest, "pause_microseconds": pause_microseconds}
        logger.info("draft promoted", extra={"fields": fields})
        return pause_microseconds

    async def set_traffic(self, rollout_id: str, candidate_bps: int) -> None:
        """Sets the candidate's share. Raises InvalidInputError or ConflictError."""
        await engine_result(
            self._worker.run(lambda engine: engine.traffic.set_share(rollout_id, candidate_bps))
        )

    async def outcomes(
        self, rollout_id: str, *, instance: str, after: int, limit: int
    ) -> OutcomePage:
        """A rollout's outcomes behind a cursor, which counts only for the instance it came from."""

        def page(engine: Engine) -> OutcomePage:
            begin = after if instance == engine.instance else 0
            outcomes = tuple(
                engine.traffic.outcomes(rollout_id, after=begin, limit=limit or _DEFAULT_OUTCOMES)
            )
            last = outcomes[-1].sequence if outcomes else begin
            return OutcomePage(engine.instance, outcomes, last)

        found = await engine_result(self._worker.run(page))
        # A cursor says that everything before it arrived.
        if instance == found.instance:
            self._listed = (rollout_id, after)
        return found

    async def are_outcomes_listed(self) -> bool:
        """Whether the judge has every outcome of the rollout in progress, if there is one."""

        def last(engine: Engine) -> tuple[str, int]:
            return engine.traffic.rollout_id, engine.traffic.last_sequence

        rollout_id, sequence = await engine_result(self._worker.run(last))
        if not rollout_id or sequence == 0:
            return True
        listed_id, listed = self._listed
        return listed_id == rollout_id and listed >= sequence

    async def status(self) -> SlotStatus:
        """What the engine holds now."""

        def reference(draft: DraftModel | None) -> DraftReference | None:
            if draft is None:
                return None
            return DraftReference(draft.name, draft.digest, self._uris.get(draft.digest, ""))

        def status(engine: Engine) -> SlotStatus:
            traffic = engine.traffic
            return SlotStatus(
                instance=engine.instance,
                stable=reference(traffic.stable),
                candidate=reference(traffic.candidate),
                rollout_id=traffic.rollout_id,
                candidate_bps=traffic.candidate_bps,
                speculation_length=engine.speculation_length,
            )

        return await engine_result(self._worker.run(status))
