"""The reconcile loop that both runtimes share: observe, plan, persist, act."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from aurora_common.errors import AuroraError, UnavailableError
from aurora_common.lasting import LastingFailures
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.action import share_bps
from aurora_operator.domain.plan.command import Command, checked
from aurora_operator.domain.plan.observation import (
    InferenceView,
    Observation,
    OutcomeBatch,
    Problem,
    ReplayBatch,
    TrainerView,
)
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.status.deployment import Candidate, Draft, Rollout, Status
from aurora_operator.reconcile.dispatcher import LOADING, Dispatcher
from aurora_operator.reconcile.fleet import Comparison, Fleet, Inference
from aurora_operator.reconcile.reports import Reports

logger = logging.getLogger(__name__)

LIVE_SECONDS = 0.3
IDLE_SECONDS = 1.0


class StatusStore(Protocol):
    async def save(self, status: Status) -> None:
        """Replaces the stored status; ConflictError if another one was stored meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class Generation:
    """A manifest, its number, and its initial draft at the place where inference finds it."""

    number: int
    deployment: AuroraDeployment
    initial: Draft | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a reconcile did.

    `moved`: reconcile again at once. `live`: something is in progress that no event reports, so
    reconcile again soon. `watches`: so is a watch, which has time.
    """

    moved: bool
    live: bool
    watches: bool = False


class Reconciler:
    """Drives one deployment's rollouts; `status` is always the stored one.

    After a ConflictError of the store, the owner must load the status and set it.
    """

    def __init__(
        self,
        generation: Generation,
        status: Status,
        *,
        store: StatusStore,
        fleet: Fleet,
        on_change: Callable[[], None],
        reports: Reports | None = None,
    ) -> None:
        self.generation = generation
        self.status = status
        self._store = store
        self._fleet = fleet
        self._on_change = on_change
        self._reports = reports or Reports()
        self._published: list[Candidate] = []
        self._trainer: TrainerView | None = None
        self._dispatcher = Dispatcher()
        self._failures = LastingFailures()
        self._replay_failures = LastingFailures()
        self._lock = asyncio.Lock()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Has `run` reconcile at once."""
        self._wake.set()

    def offer(self, candidate: Candidate) -> None:
        """Adds a published checkpoint; one that was seen already changes nothing."""
        self._published.append(candidate)
        self.wake()

    def observe_trainer(self, view: TrainerView) -> bool:
        """Takes what the trainer does; whether that is news."""
        is_news = view != self._trainer
        self._trainer = view
        if is_news:
            self.wake()
        return is_news

    async def run(self) -> None:
        """Reconciles until cancelled, more often while a rollout is live."""
        while True:
            try:
                result = await self.reconcile()
            except AuroraError as error:
                # A full disk, for example: nothing was done that is not stored.
                fields = {"reason": str(error)}
                logger.error("reconcile failed; will retry", extra={"fields": fields})
                result = Result(moved=False, live=self.status.live_rollout is not None)
            if not result.moved:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LIVE_SECONDS if result.live else IDLE_SECONDS):
                        await self._wake.wait()
            self._wake.clear()

    async def command(self, command: Command) -> Status:
        """Carries out a person's command and returns the resulting status.

        Raises NotFoundError or ConflictError if the command does not fit the rollout.
        """
        async with self._lock:
            command = checked(command, self.generation.deployment, self.status)
            await self._reconcile(command)
            self.wake()
            return self.status

    async def close(self) -> None:
        """Cancels the actions in progress."""
        await self._dispatcher.close()
        await self._reports.close()

    async def reconcile(self, command: Command | None = None) -> Result:
        """Observes, plans and acts once; the status is stored before the actions that rest on it.

        `command`: from an annotation; its answer goes into the status. Raises the store's errors,
        with no action begun.
        """
        async with self._lock:
            return await self._reconcile(command)

    async def _reconcile(self, command: Command | None) -> Result:
        observed = await self._observe(command)
        decision = plan(self.generation.deployment, self.status, observed, datetime.now(UTC))
        before = self.status
        moved = decision.status.decided != before.decided
        if decision.status != before:
            await self._store.save(decision.status)
            self._report(decision.status)
            self.status = decision.status
            self._on_change()
        generation = self.generation
        self._reports.send(
            generation.deployment, generation.number, before=before, after=self.status
        )
        self._published = [
            candidate
            for candidate in self._published
            if candidate.sequence > self.status.queue.sequence
        ]
        done = await self._dispatcher.run(decision.actions, self._fleet.inferences)
        acted = bool(decision.actions)
        # A suspended rollout is told nothing any more.
        told = not (self.generation.deployment.spec.suspend and observed.is_stopped)
        is_live = self.status.live_rollout is not None and told
        return Result(
            moved=moved or (acted and done),
            live=is_live or acted or bool(observed.awaited),
            watches=self.status.watch is not None and told,
        )

    async def _observe(self, command: Command | None) -> Observation:
        pending = self._dispatcher.pending()
        rollout = self.status.served_rollout
        inferences = self._fleet.inferences
        asked = asyncio.gather(*(_ask(inference, rollout) for inference in inferences))
        of_rollout, of_watch = self._comparisons()
        answers, replay, watch = await asyncio.gather(
            asked, self._replayed(of_rollout, "rollout"), self._replayed(of_watch, "watch")
        )
        absences = {
            inference.name: answer.cause
            for inference, answer in zip(inferences, answers, strict=True)
            if answer.cause
        }
        observed = Observation(
            generation=self.generation.number,
            initial=self.generation.initial,
            inferences=tuple(answer.view for answer in answers if answer.view is not None),
            expected=self._fleet.expected,
            existing=self._fleet.existing,
            absences={**pending, **absences},
            batches=tuple(answer.batch for answer in answers if answer.batch is not None),
            replay=replay,
            watch=watch,
            published=tuple(self._published),
            refusals=self._dispatcher.refusals(inferences),
            command=command,
            records=self._reports.records,
            announcements=self._reports.announcements,
            components=self._fleet.components,
            problems=self._fleet.problems,
            trainer=self._trainer,
            scale=self._fleet.scale,
        )
        return replace(observed, problems=(*observed.problems, *self._lasting(observed)))

    async def _replayed(self, comparison: Comparison | None, name: str) -> ReplayBatch | None:
        """What replaying requests has shown since it was asked last; None if nothing new."""
        if comparison is None:
            self._replay_failures.succeeded(name)
            return None
        try:
            if self._fleet.judge is None:
                raise UnavailableError("no trainer is ready")
            batch = await self._fleet.judge.replay(comparison)
        except AuroraError as error:
            self._replay_failures.failed(name, str(error))
            return None
        self._replay_failures.succeeded(name)
        return batch

    def _comparisons(self) -> tuple[Comparison | None, Comparison | None]:
        """What is to be replayed for the rollout in progress, and for the watch."""
        stable, rollout, watch = self.status.stable, self.status.live_rollout, self.status.watch
        if stable is None or self.generation.deployment.spec.suspend:
            return None, None
        of_rollout = of_watch = None
        if rollout is not None and (replay := rollout.evidence.replay) is not None:
            draft = rollout.candidate.draft
            is_served = not rollout.plan.dry_run
            of_rollout = self._comparison(rollout.id, stable, draft, replay, is_served=is_served)
        if watch is not None:
            of_watch = self._comparison(watch.rollout_id, stable, watch.former, watch.replay)
        return of_rollout, of_watch

    def _comparison(
        self,
        rollout_id: str,
        stable: Draft,
        candidate: Draft,
        replay: Replay,
        *,
        is_served: bool = True,
    ) -> Comparison:
        spec = self.generation.deployment.spec
        # Without live requests there is nothing to time.
        any_shape = is_served and spec.engine.times_drafts
        return Comparison(
            rollout_id=rollout_id,
            stable=stable,
            candidate=candidate,
            begin=replay.begin,
            after=replay.after,
            greedy_drafts=spec.engine.drafts_greedily,
            speculation_length=spec.draft.speculation_length.max,
            any_shape=any_shape,
        )

    def _lasting(self, observed: Observation) -> list[Problem]:
        """What could not be done for a while: control an inference that serves, or replay."""
        self._failures.retain(observed.expected)
        for name in observed.expected:
            cause = observed.awaited.get(name, "")
            if not cause:
                self._failures.succeeded(name)
            elif cause != LOADING:
                self._failures.failed(name, cause)
        found = [
            f"inference: pod {name} cannot be controlled: {cause}"
            for name, cause in sorted(self._failures.lasting().items())
        ]
        found += [
            f"recorded requests cannot be replayed: {cause}"
            for cause in sorted(set(self._replay_failures.lasting().values()))
        ]
        # A suspended trainer records them once it runs again.
        if (cause := self._reports.problem) and not self.generation.deployment.spec.trainer.suspend:
            found.append(f"trainer: {cause}")
        return [Problem("ComponentFailing", message) for message in found]

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
            "log_e": round(rollout.evidence.promoting_log_e, 3),
            "log_harm": round(rollout.evidence.log_harm, 3),
        }
        logger.info("rollout moved", extra={"fields": fields})


@dataclass(frozen=True, slots=True)
class _Answer:
    """One inference's answer; `cause` is why it is incomplete, or empty."""

    view: InferenceView | None = None
    batch: OutcomeBatch | None = None
    cause: str = ""


async def _ask(inference: Inference, rollout: Rollout | None) -> _Answer:
    cursor = None if rollout is None else rollout.cursors.get(inference.name)
    try:
        if inference.leaving:
            batch = None if rollout is None else await inference.outcomes(rollout.id, cursor)
            return _Answer(batch=batch)
        view = await inference.view()
        if rollout is None or view.rollout_id != rollout.id:
            return _Answer(view)
        return _Answer(view, await inference.outcomes(rollout.id, cursor))
    except AuroraError as error:
        # It is starting or restarting, which its component's condition reports.
        logger.debug("inference unreachable", extra={"fields": {"reason": str(error)}})
        return _Answer(cause=str(error))
