"""Positions in the buffer's stream: Redis stream ids."""

from __future__ import annotations


def stream_order(stream_id: str) -> tuple[int, int]:
    """Sort key of Redis stream ids (`<milliseconds>-<counter>`); the empty id comes first."""
    milliseconds, _, counter = stream_id.partition("-")
    return int(milliseconds or 0), int(counter or 0)
