"""What a decode step takes with one draft, though its batch was drafted for by several.

A step lasts as long as the proposals of all its drafts and the target's pass. Leaving out the
proposals of other drafts shows what a request's own draft costs. How long a proposal takes depends
on how many rows and tokens it has, so two drafts are compared at the same numbers of both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# A machine's speed changes with what else it does: only the last proposals say what one takes now.
_MEMORY_PROPOSALS = 20
# One that takes so many times as long reflects a stall of the machine.
_OUTLIER = 4.0


class _Shape(NamedTuple):
    """Of a proposal: whose it is, for how many rows, and how many tokens."""

    digest: str
    rows: int
    tokens: int


class StepTime(NamedTuple):
    """Of one row in one step, seconds: with its own draft alone, and with the stable one instead.

    `with_stable`: None for the stable draft's own rows, and while either is not known.
    """

    alone: float
    with_stable: float | None


@dataclass(slots=True)
class OwnTime:
    """A request's decode steps without what other drafts took, seconds.

    `compared`, `with_stable`: of the steps that could be compared with the stable draft's.
    """

    alone: float = 0.0
    compared_steps: int = 0
    compared: float = 0.0
    with_stable: float = 0.0

    def add(self, step: StepTime) -> None:
        self.alone += step.alone
        if step.with_stable is not None:
            self.compared_steps += 1
            self.compared += min(step.alone, _OUTLIER * step.with_stable)
            self.with_stable += step.with_stable


class DraftCosts:
    """How long the proposals of each draft take, by rows and tokens, as last measured."""

    def __init__(self) -> None:
        # None: tried once, which also prepares for that shape and so takes longer.
        self._seconds: dict[_Shape, float | None] = {}

    def forget_all_but(self, digests: Collection[str]) -> None:
        self._seconds = {key: each for key, each in self._seconds.items() if key.digest in digests}

    def measured(
        self,
        digests: Sequence[str | None],
        lengths: Sequence[int],
        *,
        drafting: Mapping[str, float],
        seconds: float,
        stable: str,
    ) -> Iterator[StepTime]:
        """What a step of `seconds` was for each row, once its proposals are counted.

        `digests`, `lengths`: each row's draft and how many tokens were drafted; `drafting`: the
        seconds that each draft took; `stable`: the digest to compare with, empty if there is none.
        """
        drafted = defaultdict[str, list[int]](list)
        for digest, length in zip(digests, lengths, strict=True):
            if digest and length:
                drafted[digest].append(length)
        shapes = {
            digest: _Shape(digest, len(drafted[digest]), max(drafted[digest]))
            for digest in drafting
            if digest in drafted
        }
        comparable = {
            digest: shape
            for digest, shape in shapes.items()
            if digest != stable and shape in self._seconds
        }
        for digest, shape in shapes.items():
            self._count(shape, drafting[digest])
        rest = max(seconds - sum(drafting.values()), 0.0)
        for digest, length in zip(digests, lengths, strict=True):
            own = drafting.get(digest or "", 0.0) if length else 0.0
            compared = comparable.get(digest or "") if length else None
            usual = None
            if compared is not None:
                usual = self._seconds.get(compared._replace(digest=stable))
            yield StepTime(rest + own, None if usual is None else rest + usual)

    def _count(self, shape: _Shape, seconds: float) -> None:
        if shape not in self._seconds:
            self._seconds[shape] = None
            return
        usual = self._seconds[shape]
        if usual is None:
            self._seconds[shape] = seconds
            return
        capped = min(seconds, _OUTLIER * usual)
        self._seconds[shape] = usual + (capped - usual) / _MEMORY_PROPOSALS
