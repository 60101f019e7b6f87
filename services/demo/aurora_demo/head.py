"""The demo's static draft of a kind that reads the target's hidden states: a head."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from aurora_common.checkpoint import read_manifest
from aurora_demo.corpus import Domain
from aurora_demo.models import DemoModels
from aurora_demo.progress import TrainingProgress
from aurora_demo.training import Windows
from aurora_model.draft import Draft, draft_kind, publish_draft
from aurora_model.target import target_identity
from aurora_model.weights import load_decoder
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.learning.gradient import Unroll
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.learning.objective import ObjectiveName

HeadKind = Literal["Eagle3"]


# A step of a head costs many times one of the demo's standalone draft: it is as wide as the target,
# is trained several tokens ahead, and has the target compute what it reads.
_HYPERPARAMETERS: dict[str, str | int] = {
    "learningRate": "2e-3",
    "batchSize": 8,
    "stepsPerRound": 24,
}


@dataclass(frozen=True, slots=True)
class HeadTraining:
    """Trains on the text of one domain, as the trainer does on served requests."""

    domain: Domain
    steps: int
    windows: int  # in a batch
    window_tokens: int
    learning_rate: float
    objective: ObjectiveName
    unroll_steps: int
    seed: int


HEAD_TRAINING = HeadTraining(
    domain="python",
    steps=60,
    windows=8,
    window_tokens=128,
    learning_rate=2e-3,
    objective="LK",
    unroll_steps=4,
    seed=1,
)


def with_head(
    models: DemoModels,
    kind: HeadKind,
    documents: Sequence[str],
    progress: TrainingProgress,
    training: HeadTraining = HEAD_TRAINING,
) -> DemoModels:
    """The models with a head for the same target in the draft's place, trained now unless cached.

    `documents`: the text of its domain. It sees no other, so it is poor after a shift. Raises
    StorageError if the cache is not writable, and CheckpointError if its contents are damaged.
    """
    folder = models.target.parent / "heads" / _digest(training, documents)
    name = kind.lower()
    # Complete whenever it exists: it is renamed to this name last.
    published = next(iter(sorted(folder.glob(f"{name}-*"))), None)
    if published is None:
        head = _trained(models, name, documents, training, progress)
        identity = target_identity(models.target)
        published, _ = publish_draft(head, folder, name=name, target=identity)
    digest = read_manifest(published).digest
    return replace(
        models,
        kind=kind,
        draft=published,
        draft_digest=digest,
        hyperparameters=_HYPERPARAMETERS,
    )


def _digest(training: HeadTraining, documents: Sequence[str]) -> str:
    content = json.dumps([asdict(training), list(documents)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _trained(
    models: DemoModels,
    name: str,
    documents: Sequence[str],
    training: HeadTraining,
    progress: TrainingProgress,
) -> Draft:
    target = load_decoder(models.target, dtype=torch.float32).requires_grad_(requires_grad=False)
    head = draft_kind(name).random(target.config, training.seed)
    head.attach(target)
    # Every window is new: nothing to cache.
    teacher = Teacher(target, head.target_layers(target.config), cache_bytes=0)
    settings = LearnerSettings(
        training.objective, training.learning_rate, unroll=Unroll(training.unroll_steps)
    )
    learner = Learner(head, settings, packed=teacher.pack)
    stream = torch.tensor(models.vocabulary().encode_documents(documents))
    batches = _batches(stream, training)
    with progress.shown(training.steps):
        progress.stage(f"{name} head")
        for _ in range(training.steps):
            learner.step(next(batches))
            progress.advance(1)
    return learner.average


def _batches(stream: Tensor, training: HeadTraining) -> Iterator[list[Sample]]:
    """Windows of a stream of tokens, int64 [N], as requests whose prompts are two tokens."""
    windows = Windows(
        streams=[stream],
        counts=[training.windows],
        length=training.window_tokens,
        generator=torch.Generator().manual_seed(training.seed),
    )
    length = training.window_tokens
    while True:
        yield [
            Sample(
                # All alike: the teacher keeps nothing.
                stream_id="",
                request_id="",
                domain=training.domain,
                tokens=tokens.astype(np.int32),
                top_ids=np.zeros((length - 1, 0), np.int32),
                log_probs=np.zeros((length - 1, 0), np.float16),
                tail_mass=np.ones(length - 1, np.float16),
            )
            for tokens in windows.draw().numpy()
        ]
