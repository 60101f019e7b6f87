"""How a batch is divided among the replicas."""

from __future__ import annotations

from collections.abc import Sequence


def shares(costs: Sequence[float], starts: Sequence[float]) -> tuple[tuple[int, ...], ...]:
    """The numbers of each share's samples, ascending.

    costs: what each sample takes, at least 0; starts: for each share, at least one, what goes by
    before it begins, in the same unit. The costliest sample goes to whoever would end first with it
    (Graham's LPT: the last ends at most a third later than it must). There are as many shares as
    starts, or as samples where there are fewer; none is empty, however late it begins.
    """
    count = min(len(starts), len(costs))
    ends = list(starts[:count])
    found: list[list[int]] = [[] for _ in range(count)]
    for number in sorted(range(len(costs)), key=lambda number: (-costs[number], number)):
        first = min(range(count), key=lambda share: (ends[share], share))
        found[first].append(number)
        ends[first] += costs[number]
    for share in found:
        if not share:
            # The cheapest of whoever has most: samples were dealt by falling cost.
            share.append(max(found, key=len).pop())
    return tuple(tuple(sorted(share)) for share in found)
