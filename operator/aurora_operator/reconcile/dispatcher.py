"""Dispatches actions to inferences: all at once, one at a time each, awaited briefly."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aurora_common.errors import AuroraError, CheckpointError
from aurora_operator.domain.plan.action import Action, StageDraft
from aurora_operator.domain.plan.observation import Refusal
from aurora_operator.reconcile.fleet import Inference

logger = logging.getLogger(__name__)

# How long a reconcile waits for the actions that it began: loading a draft may take minutes.
_WAIT_SECONDS = 1.0
# Why an inference that is busy with its last action gets no other.
LOADING = "it is loading a draft"
# A refused draft is tried again after this, and refused for good once it was refused so often: a
# failed read, or a folder that is not mounted yet, says nothing of the draft.
_RETRY_SECONDS = 10.0
_ATTEMPTS = 3
# One that is no longer tried is forgotten after this.
_REFUSAL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Refused:
    reason: str
    at: float
    attempts: int


class Dispatcher:
    """An inference that is busy gets no further action until it is done."""

    def __init__(self) -> None:
        # Each returns why it failed, or empty.
        self._tasks: dict[str, asyncio.Task[str]] = {}
        # By inference and digest.
        self._refused: dict[tuple[str, str], _Refused] = {}

    async def run(self, actions: Sequence[Action], inferences: Sequence[Inference]) -> bool:
        """Begins the actions: those of one inference in order, all inferences at once.

        Returns whether nothing failed and nothing is in progress: what takes longer than a second
        goes on in the background.
        """
        by_name: dict[str, list[Action]] = {}
        for action in actions:
            by_name.setdefault(action.inference, []).append(action)
        until = time.monotonic() + _WAIT_SECONDS
        begun = []
        # Actions of an inference that is gone meanwhile are dropped.
        for inference in inferences:
            due = by_name.get(inference.name)
            if due is not None and inference.name not in self._tasks:
                task = asyncio.create_task(self._run_one(inference, due, until))
                self._tasks[inference.name] = task
                begun.append(task)
        if begun:
            await asyncio.wait(begun, timeout=_WAIT_SECONDS)
        return all(
            task.done() and not task.cancelled() and not task.result()
            for task in self._tasks.values()
        )

    def pending(self) -> Mapping[str, str]:
        """Why actions are not done, by inference; each failure is returned once."""
        found = {}
        for name, task in list(self._tasks.items()):
            if not task.done():
                found[name] = LOADING
                continue
            del self._tasks[name]
            # A task is cancelled if its channel was closed: the pod is gone.
            if not task.cancelled() and (cause := task.result()):
                found[name] = cause
        return found

    def refusals(self, inferences: Sequence[Inference]) -> tuple[Refusal, ...]:
        """The drafts that these inferences refuse, until they load them or no longer try."""
        now = time.monotonic()
        names = {inference.name for inference in inferences}
        self._refused = {
            (name, digest): refused
            for (name, digest), refused in self._refused.items()
            if name in names and now - refused.at < _REFUSAL_SECONDS
        }
        return tuple(
            Refusal(
                inference,
                digest,
                refused.reason,
                lasting=refused.attempts >= _ATTEMPTS,
                may_retry=now - refused.at >= _RETRY_SECONDS,
            )
            for (inference, digest), refused in self._refused.items()
        )

    async def close(self) -> None:
        """Cancels the actions in progress."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks = {}

    async def _run_one(self, inference: Inference, actions: Sequence[Action], until: float) -> str:
        """Begins no action after `until`: the plan may have changed by then."""
        for action in actions:
            if time.monotonic() >= until:
                break
            fields: dict[str, object] = {"action": str(action)}
            try:
                await inference.apply(action)
            except AuroraError as error:
                logger.warning("action failed", extra={"fields": {**fields, "reason": str(error)}})
                if isinstance(error, CheckpointError) and isinstance(action, StageDraft):
                    # That lasts until it is tried again, other than a failure.
                    self._refuse(inference.name, action.draft.digest, str(error))
                    return ""
                return str(error)
            if isinstance(action, StageDraft):
                self._refused.pop((inference.name, action.draft.digest), None)
            logger.info("action done", extra={"fields": fields})
        return ""

    def _refuse(self, name: str, digest: str, reason: str) -> None:
        before = self._refused.get((name, digest))
        attempts = 1 if before is None else before.attempts + 1
        self._refused[name, digest] = _Refused(reason, time.monotonic(), attempts)
