"""The engine behind the gateway as the control plane sees it: one draft decodes at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aurora_common.checkpoint import CheckpointManifest, read_manifest
from aurora_common.errors import (
    AuroraError,
    CheckpointError,
    ConflictError,
    InvalidInputError,
    UnavailableError,
)
from aurora_common.outage import Outage
from aurora_common.store.model_store import ModelStore
from aurora_common.thread import in_background
from aurora_inference.contract import (
    Arm,
    Capabilities,
    Cursor,
    DraftReference,
    EngineCounters,
    EngineStatus,
    OutcomePage,
    Receipt,
    Slot,
)
from aurora_inference.gateway.ledger import Ledger, Serving
from aurora_inference.gateway.pair import Block
from aurora_inference.gateway.plugin import (
    Plugin,
    PluginStatus,
    Switch,
    TargetShape,
    UnrelatedDraftError,
)
from aurora_inference.gateway.switchback import Plan, Switchback
from aurora_inference.slots.slots import FULL_BPS, Slots
from aurora_model.target import TargetIdentity

logger = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_SECONDS = 1.0
_READ_SECONDS = 60.0
_DRAIN_POLL_SECONDS = 0.1
# What vLLM calls the draft kinds.
_KINDS = {"draft_model": "standalone", "eagle3": "eagle3", "medusa": "medusa", "ngram": "ngram"}


class GatewayControl:
    """Fulfils EngineControl over the plugin; all of it on the event loop's thread.

    `target`: what the engine serves, of that `shape`; if None, a checkpoint may name any.
    `puts_back`: when it stops, the engine gets back the draft that it started with.
    """

    def __init__(
        self,
        plugin: Plugin,
        store: ModelStore,
        ledger: Ledger,
        *,
        target: TargetIdentity | None,
        shape: TargetShape | None = None,
        puts_back: bool = False,
    ) -> None:
        self.slots = Slots(ledger.outcomes)
        self.switches = 0
        self.switch_microseconds = 0
        self._plugin = plugin
        self._store = store
        self._ledger = ledger
        self._target = target
        self._shape = shape
        self._puts_back = puts_back
        self._problem = "the engine has not answered yet"
        self._status: PluginStatus | None = None
        self._switching = asyncio.Lock()
        self._staging = asyncio.Lock()
        self._switchback = Switchback(self.slots, ledger, self._begin)
        self._outage = Outage(logger)

    # What the engine is.

    def problem(self) -> str:
        return self._problem

    async def capabilities(self) -> Capabilities:
        method = self._status.method if self._status else ""
        return Capabilities(
            slots=1,
            assignments=("Switchback",),
            captures=("InStep", "TokenIds"),
            draft_kinds=(_KINDS.get(method, method),) if method else (),
        )

    async def status(self) -> EngineStatus:
        slots = self.slots
        return EngineStatus(
            instance=slots.outcomes.instance,
            stable=slots.stable,
            candidate=slots.candidate,
            rollout_id=slots.outcomes.rollout_id,
            candidate_bps=slots.candidate_bps,
            speculation_length=self._status.speculation_length if self._status else 0,
        )

    async def counters(self) -> EngineCounters:
        return EngineCounters(
            self.slots.outcomes.instance,
            self._ledger.counters(),
            running=self._ledger.running,
            waiting=0,
        )

    async def watch(self) -> None:
        """Follows the engine's health for ever; brings the stable draft back after a restart."""
        while True:
            try:
                await self._plugin.check_health()
                async with self._switching:
                    await self._follow(await self._plugin.status())
            except AuroraError as error:
                self._problem = str(error)
                self._outage.failed("engine unhealthy", self._problem)
            else:
                if self._problem:
                    self._outage.ended("engine healthy")
                self._problem = ""
            await asyncio.sleep(_POLL_SECONDS)

    async def _follow(self, status: PluginStatus) -> None:
        """Has an engine that started anew, or was switched by another, serve the stable draft.

        Raises UnavailableError if it serves another target.
        """
        if self._shape not in (None, status.target):
            raise UnavailableError(
                f"the engine serves another target than --target: it has {status.target}; "
                f"--target has {self._shape}"
            )
        ledger, former, self._status = self._ledger, self._status, status
        same = former is not None and former.instance == status.instance
        if same and status.live.digest == ledger.serving.digest:
            return
        if ledger.block is not None:
            ledger.discard_pair(ledger.block)
        if former is not None and not same:
            # The candidate may have had a part in its death.
            ledger.outcomes.begin_anew()
        stable, candidate = self.slots.stable, self.slots.candidate
        if stable is None or not stable.uri:
            # Whatever it serves; the control plane stages another if it disagrees.
            self.slots.stable = status.live
            ledger.switched(Serving("stable", status.live.name, status.live.digest), {}, None)
            return
        # Until all of it has been done.
        self._status = None
        self._problem = "the engine does not serve the stable draft yet"
        logger.warning("engine serves another draft; switching to the stable one")
        await self._load(stable)
        await self._activate("stable", stable, None)
        if candidate is not None:
            await self._load(candidate)
        self._status = status

    # Drafts.

    async def stage(self, slot: Slot, draft: DraftReference) -> None:
        if slot == "retained":
            raise InvalidInputError("this engine has room for no draft beside its slot")
        await _to_its_end(self._stage(slot, draft))

    async def release(self, digest: str) -> None:
        """It retains none."""

    async def unstage(self) -> None:
        await _to_its_end(self._unstage())

    async def promote(self, digest: str) -> Receipt:
        return await _to_its_end(self._promote(digest))

    async def _stage(self, slot: Arm, draft: DraftReference) -> None:
        async with self._staging:
            held = self.slots.stable if slot == "stable" else self.slots.candidate
            if held is not None and held.digest == draft.digest and held.uri:
                return
            async with self._switching:
                # The engine has room for one draft beside the live one.
                await self._drop_candidate()
            staged = await self._load(draft)
            async with self._switching:
                if slot == "stable":
                    await self._activate("stable", staged, None)
                self.slots.stage(slot, staged)
                await self._keep_slotted()
        fields = {"slot": slot, "draft": staged.name, "digest": staged.digest}
        logger.info("draft staged", extra={"fields": fields})

    async def _unstage(self) -> None:
        async with self._switching:
            await self._drop_candidate()

    async def _promote(self, digest: str) -> Receipt:
        async with self._switching:
            candidate, cost = self.slots.candidate, 0
            if candidate is not None and candidate.digest == digest:
                await self._switchback.stop()
                cost = await self._activate("stable", candidate, None)
            self.slots.promote(digest)
            await self._keep_slotted()
        fields = {"digest": digest, "pause_microseconds": cost}
        logger.info("draft promoted", extra={"fields": fields})
        return Receipt(cost)

    async def _drop_candidate(self) -> None:
        await self._switchback.stop()
        await self._serve_stable()
        self.slots.unstage()
        await self._keep_slotted()

    async def _keep_slotted(self) -> None:
        """Has the engine free the drafts that no slot holds."""
        status = await self._plugin.status()
        for digest in status.staged - self.slots.digests:
            await self._plugin.unstage(digest)

    async def _load(self, draft: DraftReference) -> DraftReference:
        """Has the engine load a checkpoint; returns it with the digest and name that it has."""
        read = in_background(partial(_manifest, self._store, draft.uri))
        try:
            async with asyncio.timeout(_READ_SECONDS):
                folder, manifest = await asyncio.shield(read)
        except TimeoutError as error:
            raise UnavailableError(
                f"the checkpoint was not read within {_READ_SECONDS:.0f} s"
            ) from error
        if self._target is not None and not self._target.is_named_by(manifest.target_digest):
            raise CheckpointError(
                f"checkpoint {folder.name} is for the target {manifest.target_digest}; this engine "
                f"serves {self._target.digest}"
            )
        loaded = DraftReference(
            draft.name or manifest.name, draft.digest or manifest.digest, draft.uri
        )
        status = await self._plugin.status()
        for digest in status.staged - {loaded.digest}:
            await self._plugin.unstage(digest)
        try:
            await self._plugin.stage(loaded, str(folder))
        except (CheckpointError, InvalidInputError) as error:
            fields = {"digest": loaded.digest, "reason": str(error)}
            logger.warning("draft refused", extra={"fields": fields})
            raise
        return loaded

    async def _activate(self, arm: Arm, draft: DraftReference, block: Block | None) -> int:
        """Switches the engine to a draft that it has loaded; returns the microseconds it took."""
        ledger, serving = self._ledger, Serving(arm, draft.name, draft.digest)
        ledger.switching()
        try:
            switch = await self._switch(draft.digest)
        except BaseException:
            ledger.switched(None, {}, None)
            raise
        if ledger.serving.digest == draft.digest and not switch.microseconds:
            # It was live already, for another arm.
            ledger.switched(None, {}, None)
            ledger.serving, ledger.block = serving, block
            return 0
        ledger.switched(serving, switch.steps, block)
        self.switches += 1
        self.switch_microseconds += switch.microseconds
        return switch.microseconds

    async def _switch(self, digest: str) -> Switch:
        try:
            return await self._plugin.activate(digest, reset=False)
        except UnrelatedDraftError:
            logger.info(
                "draft is no relative: resetting caches", extra={"fields": {"digest": digest}}
            )
            return await self._plugin.activate(digest, reset=True)

    async def _serve_stable(self) -> None:
        stable = self.slots.stable
        if self._ledger.serving.arm == "candidate" and stable is not None:
            await self._activate("stable", stable, None)

    # Traffic.

    async def split(self, rollout_id: str, candidate_bps: int, *, crossed: bool = False) -> None:
        await _to_its_end(self._split(rollout_id, candidate_bps, crossed=crossed))

    async def _split(self, rollout_id: str, candidate_bps: int, *, crossed: bool) -> None:
        async with self._switching:
            if candidate_bps and self.slots.stable is None:
                raise ConflictError("no stable draft is staged; the engine could not go back to it")
            self.slots.split(rollout_id, candidate_bps)
            plan = Plan(rollout_id, candidate_bps, crossed)
            if 0 < candidate_bps < FULL_BPS:
                if self._switchback.plan != plan:
                    await self._switchback.stop()
                    self._switchback.start(plan)
                return
            await self._switchback.stop()
            if candidate_bps == FULL_BPS:
                assert self.slots.candidate is not None
                if self._ledger.serving.digest != self.slots.candidate.digest:
                    await self._activate("candidate", self.slots.candidate, None)
            else:
                await self._serve_stable()

    async def _begin(self, block: Block, draft: DraftReference) -> None:
        async with self._switching:
            if self._ledger.serving.digest != draft.digest:
                await self._activate(block.arm, draft, block)
            self._ledger.block = block

    async def outcomes(self, rollout_id: str, *, cursor: Cursor, limit: int) -> OutcomePage:
        page = self.slots.outcomes.page(rollout_id, cursor, limit)
        # If it dies, a pair that is not told of is lost as a whole, and says nothing.
        return replace(page, unlisted={"stable": 0, "candidate": 0})

    async def drain(self) -> None:
        # Only the reader's next cursor confirms that a page has arrived.
        while not self.slots.outcomes.drained:  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_POLL_SECONDS)

    async def stop(self) -> None:
        """Leaves the engine with the stable draft, or with its own first one, if it can."""
        async with self._switching:
            await self._switchback.stop()
            try:
                await (self._put_back() if self._puts_back else self._serve_stable())
            except AuroraError as error:
                fields = {"reason": str(error)}
                logger.warning("the engine keeps its draft", extra={"fields": fields})

    async def _put_back(self) -> None:
        status = await self._plugin.status()
        start = status.start
        if status.live.digest == start.digest:
            return
        for digest in status.staged - {start.digest}:
            await self._plugin.unstage(digest)
        await self._plugin.stage(start, None)
        await self._switch(start.digest)
        fields = {"draft": start.name, "digest": start.digest}
        logger.info("draft put back", extra={"fields": fields})


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """A caller that gives up does not stop a switch halfway."""
    task = asyncio.create_task(work)
    # The caller may be gone.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


def _manifest(store: ModelStore, uri: str) -> tuple[Path, CheckpointManifest]:
    folder = store.fetch(uri)
    return folder, read_manifest(folder)
