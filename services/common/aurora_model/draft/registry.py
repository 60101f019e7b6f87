"""The draft kinds that this version supports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from aurora_common.errors import CheckpointError
from aurora_model.draft.eagle3 import Eagle3Draft
from aurora_model.draft.kind import Draft
from aurora_model.draft.standalone import StandaloneDraft

# For whatever does not name its kind: manifests, saved states and tasks of earlier versions.
DEFAULT_KIND = StandaloneDraft.kind
_KINDS: Mapping[str, type[Draft]] = MappingProxyType(
    {each.kind: each for each in (StandaloneDraft, Eagle3Draft)}
)


def kind_of_folder(folder: Path) -> type[Draft]:
    """The kind of a model folder that is not a checkpoint; raises AuroraErrors if unreadable."""
    claims = (each for each in _KINDS.values() if each.describes(folder))
    return next(claims, _KINDS[DEFAULT_KIND])


def draft_kind(name: str) -> type[Draft]:
    """The class of a kind; raises CheckpointError naming it and the kinds supported."""
    if name not in _KINDS:
        supported = ", ".join(sorted(_KINDS))
        raise CheckpointError(f"its draft kind is {name!r}: supported is {supported}")
    return _KINDS[name]
