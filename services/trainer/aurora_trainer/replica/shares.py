"""How a batch is divided among the replicas."""

from __future__ import annotations

from collections.abc import Sequence


def shares(
    costs: Sequence[float], starts: Sequence[float], *, trial: int | None = None
) -> tuple[tuple[int, ...], ...]:
    """The numbers of each share's samples, ascending; as many shares as starts.

    costs: what each sample takes, at least 0, of at least one; starts: for each share, what goes by
    before it begins, in the same unit. The costliest sample goes to whoever would end first with it
    (Graham's LPT: the last ends at most a third later than it must), so one that begins when the
    others have ended is empty. The first is never empty, nor is `trial` where another has two.
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
            # The cheapest of whoever has most: samples were dealt by falling cost.
            found[share].append(most.pop())
    return tuple(tuple(sorted(share)) for share in found)
