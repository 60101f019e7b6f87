"""The queue of published candidates: the newest gets the next rollout (QueueLatest)."""

from __future__ import annotations

from collections.abc import Sequence

from aurora_operator.domain.status.deployment import Candidate, Queue

SUPERSEDED_LIMIT = 50


def enqueue(queue: Queue, published: Sequence[Candidate], *, known: frozenset[str]) -> Queue:
    """The queue with `published` added, in any order and possibly more than once.

    A candidate whose digest is in `known` (the stable draft, the one on trial) is skipped.
    """
    for candidate in sorted(published, key=lambda candidate: candidate.sequence):
        if candidate.sequence <= queue.sequence:
            continue
        if candidate.draft.digest in known:
            queue = Queue(candidate.sequence, queue.waiting, queue.superseded)
            continue
        superseded = queue.superseded
        if queue.waiting is not None and queue.waiting.draft.digest != candidate.draft.digest:
            superseded = (queue.waiting.draft.digest, *superseded)[:SUPERSEDED_LIMIT]
        queue = Queue(candidate.sequence, candidate, superseded)
    return queue


def dequeue(queue: Queue) -> tuple[Candidate | None, Queue]:
    """The next candidate and the queue without it."""
    return queue.waiting, Queue(queue.sequence, None, queue.superseded)
