"""Ids of entries, which the buffer chooses so that Redis need not tell them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, order=True)
class EntryId:
    """The place of an entry in the stream, and when it was appended by Redis' clock."""

    milliseconds: int
    sequence: int

    @classmethod
    def parsed(cls, text: str) -> Self:
        """The id that is `text`, with or without zeros in front of its parts."""
        milliseconds, sequence = text.split("-")
        return cls(int(milliseconds), int(sequence))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.sequence}"

    @property
    def padded(self) -> str:
        """As the index has it: ordered as a text as the entries are."""
        return f"{self.milliseconds:020}-{self.sequence:020}"


FIRST_ID = EntryId(0, 0)


def ids_beyond(newest: EntryId, *, now_milliseconds: int, count: int) -> tuple[EntryId, ...]:
    """`count` ids, in order, of one millisecond: now, or that of `newest` where it is not past."""
    first = max(EntryId(now_milliseconds, 0), EntryId(newest.milliseconds, newest.sequence + 1))
    return tuple(EntryId(first.milliseconds, first.sequence + number) for number in range(count))
