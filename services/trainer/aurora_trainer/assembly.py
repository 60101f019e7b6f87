"""Builds a Trainer from what is on disk: the saved state, else the initial draft."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from aurora_common.errors import AuroraError, CheckpointError, StorageError
from aurora_common.store.registry import model_store
from aurora_model.config import read_config
from aurora_model.device import device_description, usable_device
from aurora_model.draft import Draft, draft_kind, load_draft
from aurora_model.target import TargetIdentity, target_identity
from aurora_trainer import published, state
from aurora_trainer.data.batch import pack
from aurora_trainer.data.record import RecordFormat
from aurora_trainer.data.replay import Replay, ReplayLimits
from aurora_trainer.data.seen import SeenIds
from aurora_trainer.data.teacher import Teacher, held_target
from aurora_trainer.learning.gradient import Unroll
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.learning.objective import ObjectiveName
from aurora_trainer.learning.optimizer import OptimizerName
from aurora_trainer.progress import Progress
from aurora_trainer.ranks.coordinator import Coordinator
from aurora_trainer.ranks.gradient import RankedGradient
from aurora_trainer.settings import TrainSettings
from aurora_trainer.state import STATE, State, load_state, unusable
from aurora_trainer.trainer import Trainer, Workplace

logger = logging.getLogger(__name__)

# Longer trajectories keep only their end, or where the target is to be recomputed, their beginning.
_LONGEST_SAMPLE_TOKENS = 1024
_LONGEST_RECOMPUTED_TOKENS = 4096


def assembled_trainer(settings: TrainSettings, ranks: Coordinator | None = None) -> Trainer:
    """The trainer, resumed from the last saved state if there is one.

    `ranks`: what computes its gradients beside this process. Raises StorageError if the state is
    unusable, and other AuroraErrors if the target or the draft is.
    """
    # Other ranks compute on CPUs, and the trainer its share as they do.
    device = usable_device("cpu" if settings.ranks > 1 else settings.device)
    logger.info("device", extra={"fields": {"device": device_description(device)}})
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
    workplace = replace(
        _workplace(settings, path, identity, read_config(target).context_tokens), device=device
    )
    if settings.targets == "Recompute":
        workplace = replace(workplace, held_target=held_target(target, device))
    if saved is None:
        folder = None if settings.draft is None else store.fetch(settings.draft)
        draft, digest = _initial_draft(folder, settings, target=target, identity=identity)
        return Trainer(
            workplace,
            learner=_learner(draft, settings, workplace, ranks),
            replay=Replay(limits),
            progress=Progress(
                parent_digest=digest,
                parent_uri=settings.draft or "",
                initial_digest=digest,
                initial_uri=settings.draft or "",
            ),
            seen=SeenIds(),
        )
    _check_saved(path, saved, identity, settings.draft_kind)
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
        learner=_restored_learner(path, saved, settings, workplace, ranks),
        replay=_fitting_replay(saved.replay, limits, recomputed=settings.targets == "Recompute"),
        progress=saved.progress,
        seen=SeenIds(saved.seen),
        verdicts=saved.verdicts,
    )


def _workplace(
    settings: TrainSettings, state_file: Path, identity: TargetIdentity, context_tokens: int
) -> Workplace:
    recomputed = settings.targets == "Recompute"
    longest = _LONGEST_RECOMPUTED_TOKENS if recomputed else _LONGEST_SAMPLE_TOKENS
    return Workplace(
        models=settings.models,
        state=state_file,
        target=identity,
        record_format=RecordFormat(
            target_digest=identity.digest,
            tokenizer_digest=identity.tokenizer_digest,
            vocab_size=identity.vocab_size,
            max_tokens=min(context_tokens, longest),
            former_target_digest=identity.former_digest,
            recomputed=recomputed,
        ),
        seed=settings.seed,
        batch_size=settings.batch_size,
        claims=settings.claims,
    )


def _fitting_replay(replay: Replay, limits: ReplayLimits, *, recomputed: bool) -> Replay:
    """The saved one, unless its samples were made for the other kind of targets."""
    if all(sample.is_bare == recomputed for sample in replay.samples()):
        return replay
    logger.warning("saved trajectories dropped: where targets come from has changed")
    return Replay(limits)


def _learner(
    draft: Draft, settings: TrainSettings, workplace: Workplace, ranks: Coordinator | None
) -> Learner:
    learner_settings = LearnerSettings(
        # argparse has checked the names.
        objective=cast(ObjectiveName, settings.objective),
        learning_rate=settings.learning_rate,
        optimizer=cast(OptimizerName, settings.optimizer),
        unroll=Unroll(settings.unroll_steps, settings.unroll_decay),
    )
    draft = draft.to(workplace.device)
    target, teacher = workplace.held_target, None
    if target is not None:
        draft.attach(target)
        teacher = Teacher(target, draft.target_layers(target.config))
    gradient = None
    if ranks is not None:
        gradient = RankedGradient(
            ranks,
            learner_settings.objective,
            unroll=learner_settings.unroll,
            teacher=teacher,
            target_digest=workplace.target.digest,
        )
    packed = partial(pack, device=workplace.device) if teacher is None else teacher.pack
    return Learner(draft, learner_settings, gradient, packed=packed)


def _check_saved(path: Path, saved: State, identity: TargetIdentity, kind: str) -> None:
    if saved.draft_kind != kind:
        raise unusable(path, f"it is that of a draft of kind {saved.draft_kind}, not {kind}")
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
    folder: Path | None, settings: TrainSettings, *, target: Path, identity: TargetIdentity
) -> tuple[Draft, str]:
    """The given checkpoint and its digest, or the random draft of day 0 and ""."""
    if folder is not None:
        draft, manifest = load_draft(folder, target=identity, dtype=torch.float32)
        if draft.kind != settings.draft_kind:
            raise CheckpointError(
                f"draft checkpoint {manifest.name} is of kind {draft.kind}: allowed is "
                f"{settings.draft_kind}, as --draft-kind says"
            )
        logger.info(
            "training starts from a checkpoint", extra={"fields": {"checkpoint": manifest.name}}
        )
        return draft, manifest.digest
    logger.info("training starts from random weights", extra={"fields": {"seed": settings.seed}})
    return draft_kind(settings.draft_kind).random(read_config(target), settings.seed), ""


def _restored_learner(
    path: Path,
    saved: State,
    settings: TrainSettings,
    workplace: Workplace,
    ranks: Coordinator | None,
) -> Learner:
    try:
        kind = draft_kind(saved.draft_kind)
        config = kind.parse_config(saved.draft_config, source=str(path))
        learner = _learner(kind.build(config), settings, workplace, ranks)
        learner.restore(saved.learner)
    except (RuntimeError, ValueError, KeyError, TypeError, AuroraError) as error:
        raise unusable(path, str(error)) from error
    return learner


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make {folder}: {error.strerror}") from error
