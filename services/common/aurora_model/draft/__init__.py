"""Drafts of every kind: how one is loaded, trained and published."""

from aurora_model.draft.checkpoint import load_draft, publish_draft
from aurora_model.draft.eagle3 import Eagle3Draft
from aurora_model.draft.kind import Draft, DraftConfig, PackedTokens, Predictions
from aurora_model.draft.registry import DEFAULT_KIND, draft_kind
from aurora_model.draft.standalone import StandaloneDraft, random_draft, small_draft_config

__all__ = [
    "DEFAULT_KIND",
    "Draft",
    "DraftConfig",
    "Eagle3Draft",
    "PackedTokens",
    "Predictions",
    "StandaloneDraft",
    "draft_kind",
    "load_draft",
    "publish_draft",
    "random_draft",
    "small_draft_config",
]
