"""Divides a batch among the replicas."""

from __future__ import annotations

from collections.abc import Sequence


def shares(
    costs: Sequence[float], starts: Sequence[float], *, trial: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """Indices of each share's samples, ascending; one share per start.

    costs: of each sample, at least one of them, none negative; starts: the delay before each share
    begins, in the same unit. Samples are assigned by falling cost to the share that is free first
    (Graham's LPT: at most a third longer than optimal), so a share that begins after the others
    have ended stays empty. The first is never empty, nor is `trial` if another has two samples.
    """
    ends = list(starts)
    found: list[list[int]] = [[] for _ in starts]
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        first = min(range(len(ends)), key=lambda share: (ends[share], share))
        found[first].append(number)
        ends[first] += costs[number]
    for share in (0,) if trial is None else (0, trial):
        most = max(found, key=len)
        if not found[share] and (share == 0 or len(most) > 1):
            # Its last is its cheapest: samples were assigned by falling cost.
            found[share].append(most.pop())
    return tuple(tuple(sorted(share)) for share in found)
