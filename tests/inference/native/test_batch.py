"""Rows stay dense whichever sequence ends."""

from __future__ import annotations

import pytest

from aurora_inference.contract import Request, Sampling
from aurora_inference.native.batch import Batch, Move
from aurora_inference.native.sequence import Sequence
from aurora_inference.slots.slots import Assignment


def _sequence(name: str, cached: int) -> Sequence:
    request = Request(name, (1, 2), 8, Sampling())
    sequence = Sequence(request, Assignment(None, "stable", "", 0))
    sequence.cached = cached
    return sequence


@pytest.fixture
def batch():
    """Rows 0 to 2 decode, row 3 is in prefill."""
    made = Batch()
    for name, cached in (("a", 10), ("b", 11), ("c", 12), ("d", 4)):
        made.prefilling = _sequence(name, cached)
        if name != "d":
            made.start_decoding()
    return made


@pytest.mark.parametrize(
    ("row", "moves", "left"),
    [
        (0, [Move(2, 0, 12), Move(3, 2, 4)], "cb"),
        (1, [Move(2, 1, 12), Move(3, 2, 4)], "ac"),
        (2, [Move(3, 2, 4)], "ab"),
    ],
)
def test_the_last_row_fills_the_gap(batch, row, moves, left):
    assert batch.release(batch.running[row]) == moves
    assert [each.request.id for each in batch.running] == list(left)
    assert len(batch) == 3


def test_the_row_in_prefill_leaves_no_gap(batch):
    assert batch.release(batch.prefilling) == []
    assert batch.prefilling is None
    assert len(batch) == 3
