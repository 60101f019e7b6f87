"""A deployment's running inferences and components, as the reconciler sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from aurora_operator.domain.plan.action import Action
from aurora_operator.domain.plan.observation import (
    ComponentView,
    InferenceView,
    OutcomeBatch,
    Problem,
    ReplayBatch,
    Scale,
)
from aurora_operator.domain.status.deployment import Cursor, Draft


class Inference(Protocol):
    """One running inference; each call has a deadline and raises AuroraErrors."""

    @property
    def name(self) -> str: ...
    @property
    def leaving(self) -> bool:
        """It is shutting down: its outcomes are still read, and it gets no actions."""
        ...

    async def view(self) -> InferenceView: ...
    async def outcomes(self, rollout_id: str, cursor: Cursor | None) -> OutcomeBatch: ...
    async def apply(self, action: Action) -> None: ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is to be replayed: a rollout's drafts, on requests that were judged after a stream id.

    `begin`: another, after which they must have been admitted. `greedy_drafts`: the engine drafts
    the most probable token at any temperature. `speculation_length`: what a step drafts, for
    requests in which nothing was drafted. `any_shape`: what a step costs with each is measured.
    """

    rollout_id: str
    stable: Draft
    candidate: Draft
    begin: str
    after: str
    greedy_drafts: bool
    speculation_length: int
    any_shape: bool = False


class Judge(Protocol):
    """Replays recorded requests; a call has a deadline and raises AuroraErrors."""

    async def replay(self, comparison: Comparison) -> ReplayBatch: ...


class Fleet(Protocol):
    """The current state; the reconciler reads it anew each time."""

    @property
    def inferences(self) -> Sequence[Inference]:
        """The reachable ones: ready, starting or leaving."""
        ...

    @property
    def expected(self) -> frozenset[str]:
        """The names of those that serve and are not leaving, reachable or not."""
        ...

    @property
    def existing(self) -> frozenset[str]:
        """The names of all that exist; a name that is gone never comes back."""
        ...

    @property
    def judge(self) -> Judge | None:
        """None while it cannot be reached."""
        ...

    @property
    def components(self) -> tuple[ComponentView, ...]: ...
    @property
    def problems(self) -> tuple[Problem, ...]: ...
    @property
    def scale(self) -> Scale | None: ...
