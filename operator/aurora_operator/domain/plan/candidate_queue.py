"""Which of the published candidates gets the next rollout: always the newest (QueueLatest)."""

from __future__ import annotations

from collections.abc import Sequence

from aurora_operator.domain.status.deployment import Candidate, Queue

SUPERSEDED_LIMIT = 50


def enqueue(queue: Queue, published: Sequence[Candidate], *, known: frozenset[str]) -> Queue:
    """The queue once `published` arrived, in any order and possibly again.

    A candidate whose digest is among `known` (the stable draft, the one on trial) is passed over.
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
    """The candidate whose turn it is, and the queue without it."""
    return queue.waiting, Queue(queue.sequence, None, queue.superseded)
