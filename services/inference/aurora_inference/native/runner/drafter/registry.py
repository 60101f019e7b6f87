"""Which drafter serves which kind of checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from aurora_common.checkpoint import read_manifest
from aurora_common.errors import CheckpointError
from aurora_inference.native.runner.drafter import Drafter, DrafterRoom
from aurora_inference.native.runner.drafter.eagle3 import Eagle3Drafter
from aurora_inference.native.runner.drafter.standalone import StandaloneDrafter
from aurora_inference.native.runner.target import Target
from aurora_model.draft import Eagle3Draft, StandaloneDraft


class _Load(Protocol):
    """Verifies a checkpoint of one kind and makes it ready; raises CheckpointError."""

    def __call__(
        self, folder: Path, *, digest: str, target: Target, room: DrafterRoom
    ) -> Drafter: ...


_LOADERS: Mapping[str, _Load] = MappingProxyType(
    {StandaloneDraft.kind: StandaloneDrafter.load, Eagle3Draft.kind: Eagle3Drafter.load}
)
DRAFT_KINDS = tuple(_LOADERS)


def load_drafter(folder: Path, *, digest: str, target: Target, room: DrafterRoom) -> Drafter:
    """Loads a checkpoint with the drafter for its kind.

    Raises CheckpointError if the kind has none, or if the checkpoint does not fit the target.
    """
    try:
        kind = read_manifest(folder).kind
        if kind not in _LOADERS:
            raise CheckpointError(
                f"its kind is {kind!r}; this engine supports {', '.join(DRAFT_KINDS)}"
            )
    except CheckpointError as error:
        raise CheckpointError(f"draft checkpoint {folder.name} is refused: {error}") from error
    return _LOADERS[kind](folder, digest=digest, target=target, room=room)
