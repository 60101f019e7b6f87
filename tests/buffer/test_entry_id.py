"""The ids that the buffer chooses."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aurora_buffer.entry_id import EntryId, ids_beyond

ids = st.builds(EntryId, st.integers(0, 2**63), st.integers(0, 2**63))


@given(ids, ids)
def test_padded_ids_are_ordered_as_ids(one, other):
    assert (one < other) == (one.padded < other.padded)


@given(ids)
def test_id_survives_its_texts(one):
    assert EntryId.parsed(str(one)) == EntryId.parsed(one.padded) == one


@given(ids, st.integers(0, 2**63), st.integers(1, 50))
def test_ids_are_in_order_beyond_the_newest_and_not_before_now(newest, now, count):
    chosen = ids_beyond(newest, now_milliseconds=now, count=count)
    assert len(chosen) == count
    assert all(one < other for one, other in pairwise((newest, *chosen)))
    assert {one.milliseconds for one in chosen} == {max(now, newest.milliseconds)}
