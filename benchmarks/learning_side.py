"""What learns from the requests that it serves: the trainer as it is, and what it is compared with.

A trainer runs its own loop over its own files. What it publishes is judged on the requests that
come after, by the operator's own evidence; what a canary's steps would add to that is left out.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from benchmarks.workload import Workload
from numpy.typing import NDArray

from aurora.buffer.v1 import buffer_pb2
from aurora_common.checkpoint import read_manifest
from aurora_common.lasting import LastingFailures
from aurora_model.config import read_config
from aurora_model.draft import Draft, draft_kind, load_draft
from aurora_operator.domain.rollout import replay as rollout_replay
from aurora_operator.domain.rollout.betting import log_threshold
from aurora_operator.domain.rollout.replay import Score, replayed, replayed_harm
from aurora_operator.domain.rollout.time_saved import is_faster
from aurora_trainer.control.budget import Budget
from aurora_trainer.data.record import RecordFormat, sample_from
from aurora_trainer.data.replay import Replay, ReplayLimits
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.seen import SeenIds
from aurora_trainer.judge.acceptance import acceptance
from aurora_trainer.judge.renewal import expected_steps
from aurora_trainer.judge.sampling import Sampling, sampling_of
from aurora_trainer.learning.gradient import LocalGradient, Loss
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.loop import Schedule, TrainingLoop
from aurora_trainer.progress import Progress, Trigger
from aurora_trainer.published import published_after
from aurora_trainer.trainer import Trainer, Workplace
from aurora_trainer.verdict import StableDraft, Verdict

# Requests to a block, which is served by one draft and then learned from.
BLOCK = 16
# What a step drafts when two drafts are compared.
_JUDGED_LENGTH = 4
_THRESHOLD = log_threshold("0.01")
_LEAST_JUDGED = 24
_MOST_JUDGED = 96
# Public Aurora's interval between pushes; it trains on every request once.
_STEPS_TO_PUSH = 50


@dataclass(frozen=True, slots=True)
class Arm:
    """How a draft is trained: `batch` requests a step, `steps` steps after each block."""

    name: str
    learner: LearnerSettings
    loss: Loss
    limits: ReplayLimits = field(default=ReplayLimits())
    batch: int = 16
    steps: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """A recorded request in all the forms that are needed of it."""

    entry: buffer_pb2.Entry
    sample: Sample
    sampling: Sampling
    vocab_size: int


class Side(Protocol):
    """One way to serve a story."""

    @property
    def served(self) -> Draft | None:
        """The draft that serves; None: nothing is drafted."""

    @property
    def trained(self) -> Draft | None:
        """What it would serve if nothing were judged."""

    def learn(self, requests: Sequence[Request], accepted: Sequence[NDArray[np.float64]]) -> None:
        """From a block that was served, with what the served draft's acceptance was at each
        position; all zero without one."""


class Static:
    """Serves the draft that it began with."""

    def __init__(self, draft: Draft | None) -> None:
        self.served = self.trained = draft

    def learn(self, requests: Sequence[Request], accepted: Sequence[NDArray[np.float64]]) -> None:
        pass


class PublicRecipe:
    """Each request once, in order, one a step, pushed every 50 steps without a comparison."""

    def __init__(self, arm: Arm, draft: Draft, *, served: Draft | None) -> None:
        self.served = served
        self._learner = Learner(draft, arm.learner, LocalGradient(arm.loss))

    @property
    def trained(self) -> Draft:
        return self._learner.draft

    def learn(self, requests: Sequence[Request], accepted: Sequence[NDArray[np.float64]]) -> None:
        for request in requests:
            self._learner.step([request.sample])
            if self._learner.steps % _STEPS_TO_PUSH == 0:
                self.served = copy.deepcopy(self._learner.draft)


class Deployment:
    """The trainer's loop, and rollouts of what it publishes."""

    def __init__(
        self, arm: Arm, draft: Draft, *, served: Draft | None, work: Workload, folder: Path
    ) -> None:
        """`draft`: to be trained; `served`: the workload's, or nothing on day 0."""
        self.served = served
        self._work = work
        self._rollout: _Rollout | None = None
        self._sequence = 0
        digest = "" if served is None else read_manifest(work.static_draft).digest
        uri = "" if served is None else work.static_draft.as_uri()
        (folder / "models").mkdir()
        self._trainer = Trainer(
            Workplace(
                models=folder / "models",
                state=folder / "state.pt",
                target=work.identity,
                record_format=record_format(work),
                seed=arm.seed,
                batch_size=arm.batch,
            ),
            learner=Learner(draft, arm.learner, LocalGradient(arm.loss)),
            replay=Replay(arm.limits),
            progress=Progress(
                parent_digest=digest, parent_uri=uri, initial_digest=digest, initial_uri=uri
            ),
            seen=SeenIds(),
        )
        self._source = _Source()
        self._loop = TrainingLoop(
            self._trainer,
            Schedule(Trigger(BLOCK, 0.0), arm.steps),
            source=self._source,
            listener=_Listener(),
            clock=_Clock(),
            failures=LastingFailures(),
            budget=Budget(100, began_at=time.monotonic()),
        )

    @property
    def trained(self) -> Draft:
        return self._trainer.learner.average

    def learn(self, requests: Sequence[Request], accepted: Sequence[NDArray[np.float64]]) -> None:
        self._judge(requests, accepted)
        self._source.entries = [request.entry for request in requests]
        running = threading.Event()
        self._loop.turn(running)
        while self._trainer.progress.phase != "WaitingForTrajectories":
            self._loop.turn(running)
        self._roll_out()

    def _judge(self, requests: Sequence[Request], accepted: Sequence[NDArray[np.float64]]) -> None:
        rollout = self._rollout
        if rollout is None:
            return
        for request, served in zip(requests, accepted, strict=True):
            rollout.judge(request, served)
        if (outcome := rollout.outcome()) is None:
            return
        if outcome == "Promoted":
            self.served = rollout.candidate
            self._trainer.measure_against(StableDraft(rollout.digest, rollout.uri))
        verdict = Verdict(rollout.digest, rollout.digest, outcome, "", 0, None, 0)
        self._trainer.tell([*self._trainer.verdicts, verdict])
        self._rollout = None

    def _roll_out(self) -> None:
        """The newest checkpoint, if nothing is being rolled out."""
        if self._rollout is not None:
            return
        found = published_after(self._trainer.workplace.models, self._sequence)
        if not found:
            return
        newest = found[-1]
        self._sequence = newest.sequence
        draft, manifest = load_draft(newest.folder, target=self._work.identity, dtype=torch.float32)
        self._rollout = _Rollout(draft.eval(), manifest.digest, newest.folder.as_uri())


@dataclass(slots=True)
class _Rollout:
    """A candidate, and the evidence for it."""

    candidate: Draft
    digest: str
    uri: str
    evidence: rollout_replay.Replay = field(default=rollout_replay.Replay())

    def judge(self, request: Request, served: NDArray[np.float64]) -> None:
        found = scored(self.candidate, request)
        self.evidence = replayed(
            self.evidence,
            Score(
                id=request.entry.id,
                domain=request.sample.domain,
                output_tokens=request.sample.output_count,
                stable_steps=expected_steps(served, _JUDGED_LENGTH),
                candidate_steps=expected_steps(found, _JUDGED_LENGTH),
            ),
        )

    def outcome(self) -> str | None:
        """How it ended; None: it goes on."""
        if replayed_harm(self.evidence, threshold=_THRESHOLD) is not None:
            return "RolledBack"
        if self.evidence.requests >= _LEAST_JUDGED and is_faster(
            self.evidence, threshold=_THRESHOLD
        ):
            return "Promoted"
        return "Inconclusive" if self.evidence.requests >= _MOST_JUDGED else None


def record_format(work: Workload) -> RecordFormat:
    return RecordFormat(
        target_digest=work.identity.digest,
        tokenizer_digest=work.identity.tokenizer_digest,
        vocab_size=work.identity.vocab_size,
        max_tokens=1024,
    )


def request_of(entry: buffer_pb2.Entry, work: Workload) -> Request:
    sample = sample_from(entry.id, entry.trajectory, record_format(work))
    return Request(entry, sample, sampling_of(entry.trajectory), work.identity.vocab_size)


def scored(draft: Draft, request: Request) -> NDArray[np.float64]:
    """How likely the target accepts the draft's token at each position."""
    return acceptance(draft, request.sample, request.sampling, vocab_size=request.vocab_size)


def first_draft(work: Workload, seed: int, *, from_nothing: bool) -> Draft:
    """The workload's, or one with random weights of the shape that a trainer gives it."""
    if from_nothing:
        return draft_kind("standalone").random(read_config(work.target), seed)
    return load_draft(work.static_draft, target=work.identity, dtype=torch.float32)[0]


class _Source:
    """Delivers a block at once."""

    def __init__(self) -> None:
        self.entries: list[buffer_pb2.Entry] = []

    def take(self, *, wait_seconds: float) -> list[buffer_pb2.Entry]:
        taken, self.entries = self.entries, []
        return taken


class _Listener:
    def durable(self, ids: Sequence[str]) -> None:
        pass

    def published(self) -> None:
        pass


class _Clock:
    def monotonic(self) -> float:
        return time.monotonic()

    def unix_ms(self) -> int:
        return int(time.time() * 1000)
