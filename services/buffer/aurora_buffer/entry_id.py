"""Stream ids, which the buffer chooses itself so that it knows them before Redis answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, order=True)
class EntryId:
    """An entry's position in the stream, and when it was appended by Redis' clock."""

    milliseconds: int
    sequence: int

    @classmethod
    def parsed(cls, text: str) -> Self:
        """The id in `text`, whose parts may have leading zeros."""
        milliseconds, sequence = text.split("-")
        return cls(int(milliseconds), int(sequence))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"

    @property
    def padded(self) -> str:
        """As in the index: sorts as text in the order of the entries."""
        return f"{self.milliseconds:020}-{self.sequence:020}"


FIRST_ID = EntryId(0, 0)


def ids_beyond(newest: EntryId, *, now_milliseconds: int, count: int) -> tuple[EntryId, ...]:
    """`count` consecutive ids of one millisecond: now, or that of `newest` if not yet past."""
    first = max(EntryId(now_milliseconds, 0), EntryId(newest.milliseconds, newest.sequence + 1))
    return tuple(EntryId(first.milliseconds, first.sequence + number) for number in range(count))
