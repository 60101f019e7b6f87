"""Builds a Trainer from what is on disk: the saved state, else the initial draft."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import torch

from aurora_common.errors import AuroraError, StorageError
from aurora_common.store.registry import model_store
from aurora_model.config import read_config
from aurora_model.draft import DEFAULT_KIND, Draft, draft_kind, load_draft
from aurora_model.target import TargetIdentity, target_identity
from aurora_trainer import published, state
from aurora_trainer.data.record import RecordFormat
from aurora_trainer.data.replay import Replay, ReplayLimits
from aurora_trainer.data.seen import SeenIds
from aurora_trainer.learning.learner import Differentiator, Learner, LearnerSettings
from aurora_trainer.learning.objective import ObjectiveName
from aurora_trainer.progress import Progress
from aurora_trainer.settings import TrainSettings
from aurora_trainer.state import STATE, State, load_state, unusable
from aurora_trainer.trainer import Trainer, Workplace

logger = logging.getLogger(__name__)

# Longer trajectories keep only their end.
_LONGEST_SAMPLE_TOKENS = 1024


def assembled_trainer(settings: TrainSettings, gradient: Differentiator | None = None) -> Trainer:
    """The trainer, resumed from the last saved state if there is one.

    `gradient`: what computes its gradients; None: this process. Raises StorageError if the state is
    unusable, and other AuroraErrors if the target or the draft is.
    """
    store = model_store(claims=settings.claims)
    target = store.fetch(settings.target)
    identity = target_identity(target)
    path = settings.state / STATE
    _make_folder(settings.models)
    _make_folder(settings.state)
    published.discard_unfinished(settings.models)
    state.discard_unfinished(path)
    limits = ReplayLimits(holdout_percent=settings.holdout_percent)
    saved = load_state(path, limits)
    learner_settings = LearnerSettings(
        # argparse has checked the name.
        objective=cast(ObjectiveName, settings.objective),
        learning_rate=settings.learning_rate,
    )
    workplace = _workplace(settings, path, identity, read_config(target).context_tokens)
    if saved is None:
        folder = None if settings.draft is None else store.fetch(settings.draft)
        draft, digest = _initial_draft(folder, target=target, identity=identity, seed=settings.seed)
        return Trainer(
            workplace,
            learner=Learner(draft, learner_settings, gradient),
            replay=Replay(limits),
            progress=Progress(parent_digest=digest, parent_uri=settings.draft or ""),
            seen=SeenIds(),
        )
    _check_target(path, saved, identity)
    logger.info(
        "training resumed",
        extra={
            "fields": {
                "trajectories": saved.progress.trajectories,
                "position": saved.progress.position,
                "sequence": saved.progress.sequence,
            }
        },
    )
    return Trainer(
        workplace,
        learner=_restored_learner(path, saved, learner_settings, gradient),
        replay=saved.replay,
        progress=saved.progress,
        seen=SeenIds(saved.seen),
        verdicts=saved.verdicts,
    )


def _workplace(
    settings: TrainSettings, state_file: Path, identity: TargetIdentity, context_tokens: int
) -> Workplace:
    return Workplace(
        models=settings.models,
        state=state_file,
        target=identity,
        record_format=RecordFormat(
            target_digest=identity.digest,
            tokenizer_digest=identity.tokenizer_digest,
            vocab_size=identity.vocab_size,
            max_tokens=min(context_tokens, _LONGEST_SAMPLE_TOKENS),
            former_target_digest=identity.former_digest,
        ),
        seed=settings.seed,
        batch_size=settings.batch_size,
        claims=settings.claims,
    )


def _check_target(path: Path, saved: State, identity: TargetIdentity) -> None:
    if not identity.is_named_by(saved.target_digest):
        raise unusable(
            path, f"it belongs to target {saved.target_digest}, this one is {identity.digest}"
        )
    if saved.tokenizer_digest != identity.tokenizer_digest:
        raise unusable(
            path,
            f"it belongs to tokenizer {saved.tokenizer_digest}, this one is "
            f"{identity.tokenizer_digest}",
        )


def _initial_draft(
    folder: Path | None, *, target: Path, identity: TargetIdentity, seed: int
) -> tuple[Draft, str]:
    """The given checkpoint and its digest, or the random draft of day 0 and ""."""
    if folder is not None:
        draft, manifest = load_draft(folder, target=identity, dtype=torch.float32)
        logger.info(
            "training starts from a checkpoint", extra={"fields": {"checkpoint": manifest.name}}
        )
        return draft, manifest.digest
    logger.info("training starts from random weights", extra={"fields": {"seed": seed}})
    return draft_kind(DEFAULT_KIND).random(read_config(target), seed), ""


def _restored_learner(
    path: Path, saved: State, settings: LearnerSettings, gradient: Differentiator | None
) -> Learner:
    try:
        kind = draft_kind(saved.draft_kind)
        config = kind.parse_config(saved.draft_config, source=str(path))
        learner = Learner(kind.build(config), settings, gradient)
        learner.restore(saved.learner)
    except (RuntimeError, ValueError, KeyError, TypeError, AuroraError) as error:
        raise unusable(path, str(error)) from error
    return learner


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}") from error
