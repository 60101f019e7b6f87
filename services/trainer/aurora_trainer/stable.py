"""The stable draft in memory, to compare the one in training with."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from aurora_common.errors import AuroraError, StorageError
from aurora_common.store.registry import model_store
from aurora_model.decoder import Decoder
from aurora_model.device import CPU
from aurora_model.draft import Draft, load_draft
from aurora_model.target import TargetIdentity
from aurora_trainer.verdict import StableDraft

logger = logging.getLogger(__name__)


def loaded_draft(
    uri: str,
    digest: str,
    *,
    target: TargetIdentity,
    claims: Path | None = None,
    held_target: Decoder | None = None,
    device: torch.device = CPU,
) -> Draft:
    """The draft of a checkpoint in float32, verified; `claims`: where those of pvc:// are mounted.

    `held_target`: in memory, for drafts that compute from it. Raises AuroraErrors if it cannot be
    read or is another one.
    """
    try:
        folder = model_store(claims=claims).fetch(uri)
    except (OSError, ValueError) as error:
        raise StorageError(f"cannot read {uri!r}: {error}") from error
    draft, _ = load_draft(
        folder, digest=digest, target=target, dtype=torch.float32, device=str(device)
    )
    if held_target is not None:
        draft.attach(held_target)
    return draft


class StableDrafts:
    """Loads the stable draft when it is needed, and keeps the last one; belongs to one thread."""

    def __init__(
        self,
        target: TargetIdentity,
        claims: Path | None = None,
        held_target: Decoder | None = None,
    ) -> None:
        self._target = target
        self._claims = claims
        self._held_target = held_target
        self._kept: tuple[StableDraft, Draft] | None = None

    def load(self, stable: StableDraft | None, *, like: Draft) -> Draft | None:
        """The stable draft if it has the shape of `like`; None too if it cannot be loaded."""
        if stable is None or not stable.uri:
            return None
        if self._kept is None or self._kept[0] != stable:
            try:
                draft = loaded_draft(
                    stable.uri,
                    stable.digest,
                    target=self._target,
                    claims=self._claims,
                    held_target=self._held_target,
                    # Where it is compared.
                    device=next(like.parameters()).device,
                )
            except AuroraError as error:
                fields = {"digest": stable.digest, "reason": str(error)}
                logger.warning(
                    "stable draft not loaded; nothing is compared with it", extra={"fields": fields}
                )
                return None
            self._kept = (stable, draft.eval())
        draft = self._kept[1]
        return draft if (draft.kind, draft.config) == (like.kind, like.config) else None
