"""What runs of a deployment, as the reconciler asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aurora_operator.domain.plan.action import Action
from aurora_operator.domain.plan.observation import (
    ComponentView,
    InferenceView,
    OutcomeBatch,
    Problem,
    Scale,
)
from aurora_operator.domain.status.deployment import Cursor


class Inference(Protocol):
    """One running inference; each call has a deadline and raises AuroraErrors."""

    @property
    def name(self) -> str: ...
    @property
    def leaving(self) -> bool:
        """It is about to end: it still tells its outcomes, and is asked for nothing else."""
        ...

    async def view(self) -> InferenceView: ...
    async def outcomes(self, rollout_id: str, cursor: Cursor | None) -> OutcomeBatch: ...
    async def apply(self, action: Action) -> None: ...


class Fleet(Protocol):
    """What runs of a deployment now; each turn asks anew."""

    def inferences(self) -> Sequence[Inference]:
        """Those that can be asked: ready, starting or leaving."""
        ...

    def expected(self) -> frozenset[str]:
        """The names of those that serve and stay, whether they can be asked or not."""
        ...

    def existing(self) -> frozenset[str]:
        """The names of all that exist; another name never comes back."""
        ...

    def components(self) -> tuple[ComponentView, ...]: ...
    def problems(self) -> tuple[Problem, ...]: ...
    def scale(self) -> Scale | None: ...
