"""One turn that both runtimes share: look, let the plan decide, persist, act."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from aurora_common.errors import AuroraError
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.action import share_bps
from aurora_operator.domain.plan.command import Command, checked
from aurora_operator.domain.plan.observation import InferenceView, Observation, OutcomeBatch
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.status.deployment import Candidate, Draft, Rollout, Status
from aurora_operator.reconcile.dispatcher import Dispatcher
from aurora_operator.reconcile.fleet import Fleet, Inference

logger = logging.getLogger(__name__)

LIVE_SECONDS = 0.3
IDLE_SECONDS = 1.0


class StatusStore(Protocol):
    async def save(self, status: Status) -> None:
        """Replaces the stored status; ConflictError where another one was stored meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """A manifest, its number, and the draft that it begins with where inference finds it."""

    number: int
    deployment: AuroraDeployment
    initial: Draft | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn did.

    `moved`: another one should follow at once. `live`: something is under way that no event tells
    of, so look again soon.
    """

    moved: bool
    live: bool


class Reconciler:
    """Drives one deployment's rollouts; `status` is always the one that is stored.

    After a ConflictError of the store the owner loads the status anew and sets it.
    """

    def __init__(
        self,
        generation: Generation,
        status: Status,
        *,
        store: StatusStore,
        fleet: Fleet,
        on_change: Callable[[], None],
    ) -> None:
        self.generation = generation
        self.status = status
        self._store = store
        self._fleet = fleet
        self._on_change = on_change
        self._published: list[Candidate] = []
        self._dispatcher = Dispatcher()
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
                turn = await self.turn()
            except AuroraError as error:
                # A full disk, for example: nothing was done that is not on it.
                logger.error("turn failed", extra={"fields": {"reason": str(error)}})
                turn = Turn(moved=False, live=self.status.live_rollout is not None)
            if not turn.moved:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LIVE_SECONDS if turn.live else IDLE_SECONDS):
                        await self._wake.wait()
            self._wake.clear()

    async def command(self, command: Command) -> Status:
        """Carries out what a person ordered and returns the status that came of it.

        Raises NotFoundError or ConflictError where the order does not fit the rollout.
        """
        async with self._one_turn:
            command = checked(command, self.generation.deployment, self.status)
            await self._locked_turn(command)
            self.wake()
            return self.status

    async def close(self) -> None:
        """Gives up what is still under way."""
        await self._dispatcher.close()

    async def turn(self, command: Command | None = None) -> Turn:
        """Looks once and does what is due; the status is stored before anything rests on it.

        `command`: a written order, whose answer goes into the status. Raises what the store raises,
        with nothing done.
        """
        async with self._one_turn:
            return await self._locked_turn(command)

    async def _locked_turn(self, command: Command | None) -> Turn:
        observed = await self._observe(command)
        decision = plan(self.generation.deployment, self.status, observed, datetime.now(UTC))
        moved = decision.status.decided != self.status.decided
        if decision.status != self.status:
            await self._store.save(decision.status)
            self._report(decision.status)
            self.status = decision.status
            self._on_change()
        self._published = [
            candidate
            for candidate in self._published
            if candidate.sequence > self.status.queue.sequence
        ]
        done = await self._dispatcher.run(decision.actions, self._fleet.inferences())
        acted = bool(decision.actions)
        return Turn(
            moved=moved or (acted and done),
            live=self.status.live_rollout is not None or acted or bool(observed.awaited),
        )

    async def _observe(self, command: Command | None) -> Observation:
        undone = self._dispatcher.undone()
        rollout = self.status.live_rollout
        inferences = self._fleet.inferences()
        looks = await asyncio.gather(*(_look(inference, rollout) for inference in inferences))
        absences = {
            inference.name: look.cause
            for inference, look in zip(inferences, looks, strict=True)
            if look.cause
        }
        return Observation(
            generation=self.generation.number,
            initial=self.generation.initial,
            inferences=tuple(look.view for look in looks if look.view is not None),
            expected=self._fleet.expected(),
            existing=self._fleet.existing(),
            absences={**undone, **absences},
            batches=tuple(look.batch for look in looks if look.batch is not None),
            published=tuple(self._published),
            refusals=self._dispatcher.refusals(),
            command=command,
            components=self._fleet.components(),
            problems=self._fleet.problems(),
            scale=self._fleet.scale(),
        )

    def _report(self, after: Status) -> None:
        """Logs each transition of the rollout, with its evidence."""
        rollout = after.rollout
        if rollout is None or after.decided == self.status.decided:
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


@dataclass(frozen=True, slots=True)
class _Look:
    """What one inference told; `cause` is why it told less than it was asked."""

    view: InferenceView | None = None
    batch: OutcomeBatch | None = None
    cause: str = ""


async def _look(inference: Inference, rollout: Rollout | None) -> _Look:
    cursor = None if rollout is None else rollout.cursors.get(inference.name)
    try:
        if inference.leaving:
            batch = None if rollout is None else await inference.outcomes(rollout.id, cursor)
            return _Look(batch=batch)
        view = await inference.view()
        if rollout is None or view.rollout_id != rollout.id:
            return _Look(view)
        return _Look(view, await inference.outcomes(rollout.id, cursor))
    except AuroraError as error:
        # It starts, or is being restarted: its component says so in the conditions.
        logger.debug("not seen", extra={"fields": {"reason": str(error)}})
        return _Look(cause=str(error))
