"""What the operator tells the trainer: which draft is stable, and how rollouts ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StableDraft:
    """The draft that serves, and where its files are; `uri` may not be known: it is empty then."""

    digest: str
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a rollout ended.

    `effect_bps`: the estimated gain in acceptance. `saved_bps`: the share of verify steps that the
    candidate saves, by replay; None if nothing was replayed.
    """

    rollout_id: str
    digest: str
    outcome: str  # Promoted | RolledBack | Inconclusive; of a dry run WouldPromote | WouldRollBack
    reason: str
    effect_bps: int
    saved_bps: int | None
    at_ms: int
