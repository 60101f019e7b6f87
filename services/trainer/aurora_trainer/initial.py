"""The draft that training begins with where there is no saved state."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from aurora_model.config import read_config
from aurora_model.decoder import Decoder
from aurora_model.draft import load_draft, random_draft, small_draft_config
from aurora_model.target import TargetIdentity

logger = logging.getLogger(__name__)


def initial_draft(
    draft: Path | None, *, target: Path, identity: TargetIdentity, seed: int
) -> tuple[Decoder, str]:
    """The given checkpoint and its digest, or random weights in the small draft's shape and "".

    Raises CheckpointError where the checkpoint does not fit the target.
    """
    if draft is not None:
        decoder, manifest = load_draft(draft, target=identity, dtype=torch.float32)
        logger.info(
            "training begins with a checkpoint", extra={"fields": {"checkpoint": manifest.name}}
        )
        return decoder, manifest.digest
    logger.info("training begins with random weights", extra={"fields": {"seed": seed}})
    return random_draft(small_draft_config(read_config(target)), seed), ""
