"""What inferences were asked to do: begun together, awaited briefly, never twice at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence

from aurora_common.errors import AuroraError, CheckpointError
from aurora_operator.domain.plan.action import Action, StageDraft
from aurora_operator.reconcile.fleet import Inference

logger = logging.getLogger(__name__)

# How long a turn waits for what it began: a draft may take minutes to load.
_PATIENCE_SECONDS = 1.0
# A refused draft is tried again: its folder may have been mounted meanwhile.
_REFUSAL_SECONDS = 30.0


class Dispatcher:
    """By inference; one that is busy gets nothing new before it is done."""

    def __init__(self) -> None:
        # Each ends with why it failed, empty where it did not.
        self._tasks: dict[str, asyncio.Task[str]] = {}
        # Reason and time by digest.
        self._refused: dict[str, tuple[str, float]] = {}

    async def run(self, actions: Sequence[Action], inferences: Sequence[Inference]) -> bool:
        """Does the actions, each inference's in order and all inferences at once.

        Gives whether nothing failed and nothing is still under way: what takes longer than a moment
        goes on while the others are looked after.
        """
        by_name: dict[str, list[Action]] = {}
        for action in actions:
            by_name.setdefault(action.inference, []).append(action)
        until = time.monotonic() + _PATIENCE_SECONDS
        begun = []
        # One that is gone since it was looked at needs nothing any more.
        for inference in inferences:
            due = by_name.get(inference.name)
            if due is not None and inference.name not in self._tasks:
                task = asyncio.create_task(self._run_one(inference, due, until))
                self._tasks[inference.name] = task
                begun.append(task)
        if begun:
            await asyncio.wait(begun, timeout=_PATIENCE_SECONDS)
        return all(
            task.done() and not task.cancelled() and not task.result()
            for task in self._tasks.values()
        )

    def undone(self) -> Mapping[str, str]:
        """Why an inference has not done what it was asked, by name; a failure is told once."""
        found = {}
        for name, task in list(self._tasks.items()):
            if not task.done():
                found[name] = "it is loading a draft"
                continue
            del self._tasks[name]
            # Cancelled where its channel was closed under it: the pod is gone.
            if not task.cancelled() and (cause := task.result()):
                found[name] = cause
        return found

    def refusals(self) -> Mapping[str, str]:
        """Why a draft was refused, and by whom, by digest; forgotten after a while."""
        now = time.monotonic()
        self._refused = {
            digest: (reason, since)
            for digest, (reason, since) in self._refused.items()
            if now - since < _REFUSAL_SECONDS
        }
        return {digest: reason for digest, (reason, _) in self._refused.items()}

    async def close(self) -> None:
        """Gives up what is still under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks = {}

    async def _run_one(self, inference: Inference, actions: Sequence[Action], until: float) -> str:
        """Begins no action after `until`: the plan may be another by then."""
        for action in actions:
            if time.monotonic() >= until:
                break
            fields: dict[str, object] = {"action": str(action)}
            try:
                await inference.apply(action)
            except AuroraError as error:
                if isinstance(error, CheckpointError) and isinstance(action, StageDraft):
                    reason = f"{inference.name}: {error}"
                    self._refused[action.draft.digest] = (reason, time.monotonic())
                logger.warning("not done", extra={"fields": {**fields, "reason": str(error)}})
                return str(error)
            logger.info("done", extra={"fields": fields})
        return ""
