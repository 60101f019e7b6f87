"""Reads the stream in order, apart from every consumer group."""

from __future__ import annotations

from collections.abc import Sequence

from aurora_buffer.entry import StoredEntry, in_responses, read_count
from aurora_buffer.stream import TrajectoryStream
from aurora_buffer.subscription import DEFAULT_BATCH, MAX_BATCH, RESPONSE_BYTES


async def entries_after(stream: TrajectoryStream, after: str, limit: int) -> Sequence[StoredEntry]:
    """The entries beyond the id `after`, empty for the oldest; none only at the end of the stream.

    At most `limit` (0: DEFAULT_BATCH), MAX_BATCH, and RESPONSE_BYTES or a single larger entry.
    """
    limit = min(limit or DEFAULT_BATCH, MAX_BATCH)
    found: list[StoredEntry] = []
    size_bytes = 0
    position: str | None = after
    while position is not None and len(found) < limit and size_bytes < RESPONSE_BYTES:
        count = read_count(found, batch=limit - len(found), max_bytes=RESPONSE_BYTES - size_bytes)
        entries, position = await stream.read_after(position, count)
        found += entries
        size_bytes += sum(len(entry.trajectory) for entry in entries)
    return next(in_responses(found, max_bytes=RESPONSE_BYTES), ())
