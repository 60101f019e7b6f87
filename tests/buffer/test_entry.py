"""The pure parts: entries, and splitting them into responses."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aurora.buffer.v1.buffer_pb2 import Trajectory
from aurora_buffer.entry import (
    NewEntry,
    StoredEntry,
    checked_ids,
    in_responses,
    new_entry,
    read_count,
    stored_entry,
)

entries = st.lists(
    st.builds(StoredEntry, id=st.just("1-1"), trajectory=st.binary(max_size=40)), max_size=30
)


@given(entries, st.integers(1, 100))
def test_responses_hold_everything_in_order_within_the_limit(given_entries, max_bytes):
    parts = list(in_responses(given_entries, max_bytes=max_bytes))
    assert [entry for part in parts for entry in part] == given_entries
    for part in parts:
        assert part
        assert len(part) == 1 or sum(len(entry.trajectory) for entry in part) <= max_bytes


@given(entries, st.integers(1, 100))
def test_no_two_neighbouring_responses_fit_into_one(given_entries, max_bytes):
    parts = list(in_responses(given_entries, max_bytes=max_bytes))
    for part, following in pairwise(parts):
        size = sum(len(entry.trajectory) for entry in part)
        assert size + len(following[0].trajectory) > max_bytes


@given(entries, st.integers(1, 128), st.integers(1, 10_000))
def test_read_count_is_within_the_batch_and_the_bytes(given_entries, batch, max_bytes):
    count = read_count(given_entries, batch=batch, max_bytes=max_bytes)
    assert 1 <= count <= batch
    if given_entries and count > 1:
        mean_bytes = sum(len(entry.trajectory) for entry in given_entries) / len(given_entries)
        assert count * mean_bytes <= max_bytes


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_every_stream_id_is_one(milliseconds, sequence):
    ids = [f"{milliseconds}-{sequence}"]
    assert checked_ids(ids) == ids


@given(st.text(max_size=60), st.text(), st.lists(st.integers(0, 2**32 - 1)))
def test_what_is_stored_is_what_was_sent(tenant, domain, tokens):
    sent = Trajectory(tenant=tenant, domain=domain, output_tokens=tokens)
    entry = new_entry(sent)
    assert entry.tenant.decode() == tenant
    fields = {b"tenant": entry.tenant, b"trajectory": entry.trajectory}
    stored = stored_entry(b"1-2", fields)
    assert stored is not None
    assert stored.id == "1-2"
    assert Trajectory.FromString(stored.trajectory) == sent
    assert entry.size_bytes == sum(map(len, fields.values()))


def test_deleted_entry_is_none():
    assert stored_entry(b"1-1", None) is None
    assert stored_entry(b"1-1", {}) is None
    assert stored_entry(b"1-1", {b"other": b"x"}) is None


def test_size_counts_the_tenant():
    assert NewEntry(b"abc", b"12345").size_bytes == 8
