"""The loop that both runtimes share: look, let the plan decide, persist, act."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from aurora_common.errors import AuroraError, CheckpointError, ConflictError, NotFoundError
from aurora_operator.domain.action import Action, StageDraft, share_bps
from aurora_operator.domain.deployment import Candidate, Cursor, Status
from aurora_operator.domain.observation import (
    Command,
    ComponentView,
    InferenceView,
    Observation,
    OutcomeBatch,
)
from aurora_operator.domain.plan import plan
from aurora_operator.domain.rollout import Promoting
from aurora_operator.domain.spec import AuroraDeployment

logger = logging.getLogger(__name__)

LIVE_SECONDS = 0.3
IDLE_SECONDS = 1.0
# A refused stable draft is tried again: its folder may have been mounted meanwhile.
_REFUSAL_SECONDS = 30.0


class Inference(Protocol):
    """One running inference; each call has a deadline and raises AuroraErrors."""

    name: str

    async def view(self) -> InferenceView: ...
    async def outcomes(self, rollout_id: str, cursor: Cursor | None) -> OutcomeBatch: ...
    async def apply(self, action: Action) -> None: ...


class StatusStore(Protocol):
    def save(self, status: Status) -> None: ...


@dataclass(frozen=True, slots=True)
class Generation:
    """A manifest and its number."""

    number: int
    deployment: AuroraDeployment


class Reconciler:
    """Drives one deployment's rollouts; its status is always the one on disk."""

    def __init__(
        self,
        generation: Generation,
        status: Status,
        *,
        store: StatusStore,
        inferences: Sequence[Inference],
        components: Callable[[], tuple[ComponentView, ...]],
        on_change: Callable[[], None],
    ) -> None:
        self.generation = generation
        self.status = status
        self._store = store
        self._inferences = {inference.name: inference for inference in inferences}
        self._components = components
        self._on_change = on_change
        self._published: list[Candidate] = []
        # Reason and time by digest.
        self._refusals: dict[str, tuple[str, float]] = {}
        self._one_turn = asyncio.Lock()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Looks again at once."""
        self._wake.set()

    def offer(self, candidate: Candidate) -> None:
        """Takes a published checkpoint into account; one that was seen already changes nothing."""
        self._published.append(candidate)
        self.wake()

    async def run(self) -> None:
        """Turns until cancelled, soon again while a rollout is live."""
        while True:
            try:
                moved = await self._turn(None)
            except AuroraError as error:
                # A full disk, for example: nothing was done that is not on it.
                logger.error("turn failed", extra={"fields": {"reason": str(error)}})
                moved = False
            if not moved:
                live = self.status.live_rollout is not None
                with suppress(TimeoutError):
                    async with asyncio.timeout(LIVE_SECONDS if live else IDLE_SECONDS):
                        await self._wake.wait()
            self._wake.clear()

    async def command(self, command: Command) -> Status:
        """Carries out what a person ordered and returns the status that came of it.

        Raises NotFoundError or ConflictError where the order does not fit the rollout.
        """
        async with self._one_turn:
            command = self._checked(command)
            await self._locked_turn(command)
            self.wake()
            return self.status

    def _checked(self, command: Command) -> Command:
        if command.kind == "pause":
            return command
        if command.kind == "resume":
            if self.generation.deployment.spec.rollout.paused:
                raise ConflictError("the manifest pauses rollouts: set spec.rollout.paused: false")
            return command
        rollout = self.status.live_rollout
        if rollout is None:
            raise ConflictError(f"no rollout is in progress: nothing to {command.kind}")
        if command.rollout_id not in ("", rollout.id):
            raise NotFoundError(
                f"rollout {command.rollout_id!r} is not in progress; {rollout.id!r} is"
            )
        if command.kind == "abort" and isinstance(rollout.state, Promoting):
            raise ConflictError(f"rollout {rollout.id!r} is being promoted: too late to abort")
        return Command(command.kind, rollout.id)

    async def _turn(self, command: Command | None) -> bool:
        async with self._one_turn:
            return await self._locked_turn(command)

    async def _locked_turn(self, command: Command | None) -> bool:
        """One turn; whether it moved something, so that another one should follow at once."""
        observed = await self._observe(command)
        deployment = self.generation.deployment
        decision = plan(deployment, self.status, observed, datetime.now(UTC))
        moved = _decided(decision.status) != _decided(self.status)
        if decision.status != self.status:
            await asyncio.to_thread(self._store.save, decision.status)
            self._report(decision.status)
            self.status = decision.status
            self._on_change()
        self._published = [
            candidate
            for candidate in self._published
            if candidate.sequence > self.status.queue.sequence
        ]
        done = await self._act(decision.actions)
        return moved or (bool(decision.actions) and done)

    async def _observe(self, command: Command | None) -> Observation:
        views, batches = [], []
        rollout = self.status.live_rollout
        for inference in self._inferences.values():
            try:
                view = await inference.view()
                if rollout is not None and view.rollout_id == rollout.id:
                    cursor = rollout.cursors.get(inference.name)
                    batches.append(await inference.outcomes(rollout.id, cursor))
                views.append(view)
            except AuroraError as error:
                # It starts, or is being restarted: its component says so in the conditions.
                logger.debug("not seen", extra={"fields": {"reason": str(error)}})
        now = time.monotonic()
        self._refusals = {
            digest: (reason, since)
            for digest, (reason, since) in self._refusals.items()
            if now - since < _REFUSAL_SECONDS
        }
        return Observation(
            generation=self.generation.number,
            inferences=tuple(views),
            batches=tuple(batches),
            published=tuple(self._published),
            refusals={digest: reason for digest, (reason, _) in self._refusals.items()},
            command=command,
            components=self._components(),
        )

    async def _act(self, actions: Sequence[Action]) -> bool:
        """Does the actions in order, and whether all were done.

        An inference that fails one gets no more in this turn.
        """
        failed: set[str] = set()
        for action in actions:
            if action.inference in failed:
                continue
            fields: dict[str, object] = {"action": str(action)}
            try:
                await self._inferences[action.inference].apply(action)
            except CheckpointError as error:
                failed.add(action.inference)
                if isinstance(action, StageDraft):
                    self._refusals[action.draft.digest] = (str(error), time.monotonic())
                logger.warning("refused", extra={"fields": {**fields, "reason": str(error)}})
            except AuroraError as error:
                failed.add(action.inference)
                logger.warning("not done", extra={"fields": {**fields, "reason": str(error)}})
            else:
                logger.info("done", extra={"fields": fields})
        return not failed

    def _report(self, after: Status) -> None:
        """Logs each transition of the rollout, with its evidence."""
        rollout = after.rollout
        if rollout is None or _decided(after) == _decided(self.status):
            return
        fields = {
            "rollout": rollout.id,
            "state": type(rollout.state).__name__,
            "share_bps": share_bps(rollout),
            "requests": rollout.evidence.requests,
            "log_e": round(rollout.evidence.log_e, 3),
            "log_harm": round(rollout.evidence.log_harm, 3),
        }
        logger.info("rollout moved", extra={"fields": fields})


def _decided(status: Status) -> object:
    rollout = status.rollout
    return None if rollout is None else (rollout.id, rollout.state)
