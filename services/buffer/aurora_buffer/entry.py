"""The stored form of a trajectory, and its validation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aurora.buffer.v1.buffer_pb2 import Trajectory
from aurora_common.errors import InvalidInputError

MAX_NAME_BYTES = 256
MAX_TRAJECTORY_BYTES = 16 << 20
MAX_MESSAGE_TRAJECTORIES = 1000

TENANT_FIELD = b"tenant"
TRAJECTORY_FIELD = b"trajectory"

_ID = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")
_MAX_ID_PART = 2**64 - 1


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A trajectory to store: its tenant in UTF-8, and the message in protobuf's wire format."""

    tenant: bytes
    trajectory: bytes

    @property
    def size_bytes(self) -> int:
        """The entry's size against the stream's bound, without Redis' own overhead."""
        return len(self.tenant) + len(self.trajectory)


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as delivered; `id` is its Redis stream id."""

    id: str
    trajectory: bytes


def new_entry(trajectory: Trajectory) -> NewEntry:
    """The entry that stores `trajectory`.

    Raises InvalidInputError, which states sizes but never content, if the tenant is over
    MAX_NAME_BYTES, the trajectory over MAX_TRAJECTORY_BYTES, or the distributions do not have one
    row for each output token.
    """
    tenant = trajectory.tenant.encode()
    if len(tenant) > MAX_NAME_BYTES:
        raise InvalidInputError(f"tenant has {len(tenant)} bytes: at most {MAX_NAME_BYTES}")
    if trajectory.HasField("target"):
        _check_rows(trajectory)
    content = trajectory.SerializeToString()
    if len(content) > MAX_TRAJECTORY_BYTES:
        raise InvalidInputError(
            f"trajectory has {len(content)} bytes: at most {MAX_TRAJECTORY_BYTES}"
        )
    return NewEntry(tenant, content)


def new_entries(trajectories: Sequence[Trajectory]) -> list[NewEntry]:
    """The entries of one message.

    Raises InvalidInputError if one is invalid, or if there are over MAX_MESSAGE_TRAJECTORIES, which
    would block the event loop and Redis for too long.
    """
    if len(trajectories) > MAX_MESSAGE_TRAJECTORIES:
        raise InvalidInputError(
            f"{len(trajectories)} trajectories in one message: at most {MAX_MESSAGE_TRAJECTORIES}; "
            "split them into several messages"
        )
    return [new_entry(trajectory) for trajectory in trajectories]


def _check_rows(trajectory: Trajectory) -> None:
    target, rows = trajectory.target, len(trajectory.output_tokens)
    for name, array, row_bytes in (
        ("token_ids", target.token_ids, 4 * target.k),
        ("log_probs", target.log_probs, 2 * target.k),
        ("tail_mass", target.tail_mass, 2),
    ):
        if len(array) != rows * row_bytes:
            raise InvalidInputError(
                f"target.{name} has {len(array)} bytes: {rows} output tokens with k={target.k} "
                f"need {rows * row_bytes}"
            )


def checked_name(value: str, *, what: str) -> str:
    """`value`; raises InvalidInputError if it is empty or over MAX_NAME_BYTES in UTF-8."""
    size = len(value.encode())
    if not 0 < size <= MAX_NAME_BYTES:
        raise InvalidInputError(f"{what} has {size} bytes: 1 to {MAX_NAME_BYTES} are allowed")
    return value


def checked_ids(ids: Sequence[str]) -> Sequence[str]:
    """`ids`; raises InvalidInputError if one is not a stream id, `<ms>-<sequence>`."""
    for position, value in enumerate(ids):
        checked_id(value, what=f"ids[{position}]")
    return ids


def checked_id(value: str, *, what: str) -> str:
    """`value`; raises InvalidInputError if it is not a stream id, `<ms>-<sequence>`."""
    if not _ID.fullmatch(value) or any(int(part) > _MAX_ID_PART for part in value.split("-")):
        raise InvalidInputError(
            f"{what} is not a stream id: expected <milliseconds>-<sequence>, "
            f"got {len(value)} characters"
        )
    return value


def stored_entry(entry_id: bytes, fields: Mapping[bytes, bytes] | None) -> StoredEntry | None:
    """The entry in an answer of Redis; None if it was deleted or trimmed, or is empty."""
    content = fields.get(TRAJECTORY_FIELD) if fields else None
    return None if content is None else StoredEntry(entry_id.decode(), content)


def in_responses(
    entries: Sequence[StoredEntry], *, max_bytes: int
) -> Iterator[Sequence[StoredEntry]]:
    """Splits `entries` into parts of at most `max_bytes`, or of a single larger entry."""
    start = size = 0
    for position, entry in enumerate(entries):
        if position > start and size + len(entry.trajectory) > max_bytes:
            yield entries[start:position]
            start, size = position, 0
        size += len(entry.trajectory)
    if start < len(entries):
        yield entries[start:]


def read_count(entries: Sequence[StoredEntry], *, batch: int, max_bytes: int) -> int:
    """How many entries to read next, 1 to `batch`, for about `max_bytes`.

    Estimated from `entries`, the last that were read; a small number if empty.
    """
    if not entries:
        return min(batch, 8)
    mean_bytes = sum(len(entry.trajectory) for entry in entries) / len(entries)
    return max(1, min(batch, int(max_bytes / max(mean_bytes, 1.0))))
