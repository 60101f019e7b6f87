"""The drafts that the one in training is compared with, and that it may go on from."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

from aurora_trainer.control.start import RECENT_TRAJECTORIES, better_start
from aurora_trainer.data.replay import Replay
from aurora_trainer.data.sample import Sample
from aurora_trainer.learning.held_out import HeldOut, held_out
from aurora_trainer.learning.learner import Learner
from aurora_trainer.stable import StableDrafts
from aurora_trainer.verdict import StableDraft

logger = logging.getLogger(__name__)


class Rivals:
    """Compares the learner's averaged weights with the stable and the initial draft."""

    def __init__(
        self, learner: Learner, replay: Replay, *, stable: StableDrafts, initial: StableDrafts
    ) -> None:
        """`stable`, `initial`: what loads them; each keeps a draft in memory once it was needed."""
        self._learner = learner
        self._replay = replay
        self._stable = stable
        self._initial = initial

    def acceptance(self, samples: Sequence[Sample]) -> float:
        """The mean acceptance of the averaged weights; there must be samples."""
        return self._learner.acceptance(self._learner.average, samples)

    def compared(self, stable: StableDraft) -> HeldOut | None:
        """The averaged weights and the stable draft; None if they cannot be compared."""
        draft = self._stable.load(stable, like=self._learner.average)
        if draft is None:
            return None
        return held_out(
            list(self._replay.holdout.members),
            stable=partial(self._learner.acceptance, draft),
            trained=self.acceptance,
        )

    def reconsider(self, stable: StableDraft) -> None:
        """Goes on from the stable draft if held-out trajectories favour it."""
        found = self.compared(stable)
        if found is None or not found.prefers_stable:
            comparison = "nothing to compare" if found is None else str(found.all)
            fields = {"held_out": comparison}
            logger.info("training goes on after a rollback", extra={"fields": fields})
            return
        draft = self._stable.load(stable, like=self._learner.average)
        assert draft is not None
        self._learner.go_on_from(draft)
        fields = {"digest": stable.digest, "held_out": str(found.all)}
        logger.info("training goes on from the stable draft", extra={"fields": fields})

    def choose_start(self, stable: StableDraft, initial: StableDraft) -> None:
        """Goes on from one of them if the newest trajectories clearly favour it."""
        recent = list(self._replay.window.members)[-RECENT_TRAJECTORIES:]
        if len(recent) < RECENT_TRAJECTORIES:
            return
        average = self._learner.average
        loaded = {
            "stable": self._stable.load(stable, like=average),
            "initial": self._initial.load(initial, like=average),
        }
        drafts = {name: draft for name, draft in loaded.items() if draft is not None}
        current = self.acceptance(recent)
        others = {name: self._learner.acceptance(draft, recent) for name, draft in drafts.items()}
        chosen = better_start(current, others)
        if chosen is not None:
            self._learner.go_on_from(drafts[chosen])
        fields = {"from": chosen or "current", "acceptance": {"current": current, **others}}
        logger.info("training adapts to changed traffic", extra={"fields": fields})
