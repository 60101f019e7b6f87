"""The trainer's operations: take in, train, publish, save.

One thread owns a Trainer. The order of writes makes every crash harmless. An entry is acknowledged
(`save` returns it) only once the file that contains it is durable. A checkpoint is published before
the state that knows of it is saved: a crash between the two leaves a complete checkpoint whose
number is used up; training resumes from the saved state and publishes under the next number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from aurora.buffer.v1 import buffer_pb2
from aurora_common.checkpoint import CheckpointManifest
from aurora_model.decoder import Decoder
from aurora_model.device import CPU
from aurora_model.draft import publish_draft
from aurora_model.target import TargetIdentity
from aurora_trainer import progress as moves
from aurora_trainer.control.gain import gain, probe
from aurora_trainer.data.record import (
    BareRecordError,
    RecordError,
    RecordFormat,
    RepeatedRecordError,
    sample_from,
    served_acceptance,
    within_vocabulary,
)
from aurora_trainer.data.replay import BatchDraw, Replay, SeatDraw
from aurora_trainer.data.seen import SeenIds
from aurora_trainer.learning.gradient import Evaluation
from aurora_trainer.learning.learner import Learner
from aurora_trainer.progress import Progress
from aurora_trainer.published import checkpoint_name, newest_sequence
from aurora_trainer.rivals import Rivals
from aurora_trainer.stable import StableDrafts
from aurora_trainer.standing import Standing
from aurora_trainer.state import State, save_state
from aurora_trainer.verdict import StableDraft, Verdict

logger = logging.getLogger(__name__)

# Keep the random numbers of the two uses apart.
_SEAT_STREAM, _BATCH_STREAM = 0, 1
# More than the operator tells of at once, so that none seems to be new again.
_KEPT_VERDICTS = 64


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a trainer keeps its files, and what it trains for.

    `held_target`: in memory, if its distributions are computed here rather than recorded.
    `device`: of all that is computed.
    """

    models: Path
    state: Path
    target: TargetIdentity
    record_format: RecordFormat
    seed: int
    batch_size: int
    claims: Path | None = None
    held_target: Decoder | None = None
    device: torch.device = CPU

    def drafts(self) -> StableDrafts:
        """Loads drafts of this target."""
        return StableDrafts(self.target, self.claims, self.held_target)


class Trainer:
    """Owns everything that a saved state holds."""

    def __init__(
        self,
        workplace: Workplace,
        *,
        learner: Learner,
        replay: Replay,
        progress: Progress,
        seen: SeenIds,
        verdicts: Sequence[Verdict] = (),
    ) -> None:
        self.workplace = workplace
        self.progress = progress
        self.learner = learner
        self._replay = replay
        self._seen = seen
        self._unsaved: dict[str, None] = {}
        self._replicas = 1
        self._rivals = Rivals(
            learner, replay, stable=workplace.drafts(), initial=workplace.drafts()
        )
        self._verdicts = tuple(verdicts)
        self.has_unsaved_verdicts = False
        # As last heard; any thread may set them.
        self._stable = StableDraft(progress.parent_digest, progress.parent_uri)
        self._told: Sequence[Verdict] = ()
        self._taken: Sequence[Verdict] = self._told

    @property
    def standing(self) -> Standing:
        """A snapshot that other threads may read."""
        return Standing(
            self.progress, self.learner.steps, self.learner.skipped_steps, self._replicas
        )

    def measure_against(self, stable: StableDraft) -> None:
        """What is published from now on is judged against this draft, its parent; thread-safe.

        Until one was heard of, it is the draft that training began with.
        """
        self._stable = stable

    def tell(self, verdicts: Sequence[Verdict]) -> None:
        """How the last rollouts ended, for `take_verdicts`; thread-safe."""
        self._told = verdicts

    def take_verdicts(self) -> None:
        """Takes in those that are new; none counts twice.

        After a rollback training goes on from the stable draft, if held-out trajectories favour it.
        """
        told = self._told
        if told is self._taken:
            return
        self._taken = told
        found = [verdict for verdict in told if verdict not in self._verdicts]
        if not found:
            return
        if any(verdict.outcome == "RolledBack" for verdict in found):
            self._rivals.reconsider(self._stable)
            # Other weights, or other traffic than the one that training paused at.
            self.progress = moves.with_plateau_ended(self.progress)
        self._verdicts = (*self._verdicts, *found)[-_KEPT_VERDICTS:]
        self.has_unsaved_verdicts = True

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """How rollouts ended, the newest last."""
        return self._verdicts

    @property
    def unsaved_count(self) -> int:
        """Entries taken in since the last save."""
        return len(self._unsaved)

    def take_in(self, entries: Sequence[buffer_pb2.Entry]) -> list[str]:
        """Adds new trajectories to the replay; returns the ids that are durable already."""
        durable = []
        for entry in entries:
            if entry.id in self._seen:
                if entry.id not in self._unsaved:
                    durable.append(entry.id)
                continue
            self._remember(entry)
            self._seen.add(entry.id)
            self._unsaved[entry.id] = None
        return durable

    @property
    def can_train(self) -> bool:
        """Whether there is a trajectory to train on; all of them may be held out."""
        return bool(self._replay.window.members)

    def begin_round(self, steps: int) -> None:
        """Begins a round of training; `can_train` must hold."""
        if self.progress.control.changed:
            initial = StableDraft(self.progress.initial_digest, self.progress.initial_uri)
            self._rivals.choose_start(self._stable, initial)
        self.learner.take_snapshot()
        before = probe(list(self._replay.holdout.members), self._rivals.acceptance)
        self.progress = moves.with_round_begun(self.progress, steps, before)

    def train(self) -> None:
        """One step of the round."""
        began = time.monotonic()
        draws = np.random.default_rng(
            [self.workplace.seed, _BATCH_STREAM, self.progress.rounds, self.progress.steps_left]
        ).random((self.workplace.batch_size, 3))
        measure = self.learner.step(
            self._replay.batch([BatchDraw(*draw) for draw in draws.tolist()])
        )
        self._replicas = measure.replicas
        if not measure.applied:
            logger.warning(
                "step skipped: loss or gradient is not finite",
                extra={"fields": {"skipped_steps": self.learner.skipped_steps}},
            )
        self.progress = moves.with_step(
            self.progress,
            loss=measure.loss if measure.applied else None,
            seconds=time.monotonic() - began,
        )
        if self.progress.phase == "Publishing":
            held_out = {each.stream_id: each for each in self._replay.holdout.members}
            gained = gain(self.progress.control.probe, held_out, self._rivals.acceptance)
            self.progress = moves.with_gain(self.progress, gained)
            if waiting := self.progress.control.plateau.described(self.progress.trajectories):
                logger.info("training pauses", extra={"fields": {"reason": waiting}})

    def objection(self) -> str:
        """Why a rollout of the averaged weights would be refused, by held-out trajectories.

        Empty if they do not say so, or nothing can be compared.
        """
        found = self._rivals.compared(self._stable)
        return "" if found is None else found.objection

    def withhold(self, reason: str, *, now_ms: int) -> None:
        """Ends the round without a checkpoint; training goes on from its weights."""
        self.progress = moves.with_withheld(
            moves.with_round_ended(self.progress, now_ms=now_ms), reason
        )
        logger.info("round publishes nothing", extra={"fields": {"reason": reason}})

    def publish(self, *, now_ms: int) -> CheckpointManifest:
        """Publishes the averaged weights and ends the round.

        Raises StorageError if a write fails, leaving the round to be published, and CheckpointError
        if the weights are not finite.
        """
        workplace, progress = self.workplace, self.progress
        sequence = 1 + max(progress.sequence, newest_sequence(workplace.models))
        evaluation = self.learner.evaluate(list(self._replay.holdout.members))
        folder, manifest = publish_draft(
            self.learner.average,
            workplace.models,
            name=checkpoint_name(sequence),
            target=workplace.target,
            parent_digest=self._stable.digest,
            objective=self.learner.settings.objective,
            trained_from=progress.first,
            trained_through=progress.position,
            created_at_ms=now_ms,
            metrics=self._metrics(evaluation),
        )
        self.progress = moves.with_checkpoint(
            moves.with_round_ended(progress, now_ms=now_ms),
            sequence=sequence,
        )
        logger.info(
            "checkpoint published",
            extra={"fields": {"folder": folder.name, **(manifest.metrics or {})}},
        )
        return manifest

    def abandon_round(self, *, now_ms: int) -> None:
        """Ends the round without a checkpoint and restores the weights that it began with."""
        self.learner.restore_snapshot()
        self.progress = moves.with_round_ended(self.progress, now_ms=now_ms)

    def save(self) -> list[str]:
        """Saves everything; returns the ids that are durable as of now.

        Raises StorageError if the write fails; the previous file stays intact.
        """
        workplace = self.workplace
        stable = self._stable
        self.progress = moves.with_parent(self.progress, stable.digest, stable.uri)
        save_state(
            workplace.state,
            State(
                target_digest=workplace.target.digest,
                tokenizer_digest=workplace.target.tokenizer_digest,
                draft_kind=self.learner.draft.kind,
                draft_config=self.learner.draft.config_content(),
                learner=self.learner.state(),
                progress=self.progress,
                seen=tuple(self._seen),
                replay=self._replay,
                verdicts=self._verdicts,
            ),
        )
        self.has_unsaved_verdicts = False
        durable = list(self._unsaved)
        self._unsaved.clear()
        return durable

    def _remember(self, entry: buffer_pb2.Entry) -> None:
        try:
            sample = within_vocabulary(
                sample_from(entry.id, entry.trajectory, self.workplace.record_format),
                self.learner.draft.config.vocab_size,
            )
            if self._replay.is_repeated(sample):
                raise RepeatedRecordError("many of the newest trajectories have its prompt")
        except RecordError as error:
            self._skip(entry.id, error)
            return
        draw = np.random.default_rng(
            [self.workplace.seed, _SEAT_STREAM, self.progress.trajectories]
        ).random(2)
        self._replay.add(sample, SeatDraw(*draw.tolist()))
        drifts = self.progress.control.drifts
        self.progress = moves.with_trajectory(
            self.progress,
            entry.id,
            domain=sample.domain,
            acceptance=served_acceptance(entry.trajectory),
        )
        control = self.progress.control
        if control.drifts > drifts:
            logger.info("traffic has changed", extra={"fields": {"reason": control.drift}})

    def _skip(self, entry_id: str, error: RecordError) -> None:
        self.progress = moves.with_skipped(self.progress, error.reason)
        count = self.progress.skip_reasons[error.reason]
        # Most of a gateway's are bare on purpose; of a flood, ever fewer are logged.
        if isinstance(error, BareRecordError) or count & (count - 1):
            level = logging.DEBUG
        else:
            level = logging.WARNING
        fields = {"entry": entry_id, "reason": str(error), error.reason.lower(): count}
        logger.log(level, "trajectory skipped", extra={"fields": fields})

    def _metrics(self, evaluation: Evaluation | None) -> dict[str, float]:
        metrics = {
            "trajectories": float(self.progress.trajectories),
            "optimizer_steps": float(self.learner.steps),
            "training_seconds": self.progress.training_seconds,
        }
        if evaluation is not None:
            metrics |= asdict(evaluation)
        return metrics
