"""Reading in order, apart from every consumer group."""

import grpc
import pytest

from aurora.buffer.v1.buffer_pb2 import AppendRequest, ReadRequest
from aurora_buffer.subscription import DEFAULT_BATCH, MAX_BATCH, RESPONSE_BYTES

pytestmark = pytest.mark.redis

LAST_ID = f"{2**64 - 1}-{2**64 - 1}"


def read(buffer, after="", limit=0):
    return list(buffer.stub.Read(ReadRequest(after=after, limit=limit), timeout=30).entries)


def names(entries):
    return [entry.trajectory.request_id for entry in entries]


def test_entries_come_in_order_and_whole(buffer, trajectory):
    sent = [trajectory(str(number), tokens=number) for number in range(5)]
    last_id = buffer.append(*sent).last_id
    entries = read(buffer)
    assert [entry.trajectory for entry in entries] == sent
    assert entries[-1].id == last_id
    assert read(buffer, last_id) == []


def test_a_cursor_goes_on_after_its_entry(buffer, trajectory):
    assert read(buffer) == []
    buffer.append(*(trajectory(str(number)) for number in range(5)))
    first, second = read(buffer, limit=2)
    assert names((first, second)) == ["0", "1"]
    assert names(read(buffer, first.id)) == ["1", "2", "3", "4"]
    assert names(read(buffer, second.id, limit=2)) == ["2", "3"]
    assert names(read(buffer, "0-0", limit=1)) == ["0"]
    assert read(buffer, LAST_ID) == []


def test_a_limit_has_a_default_and_a_bound(buffer, trajectory):
    many = [trajectory(str(number)) for number in range(MAX_BATCH + 10)]
    buffer.append(*many)
    assert len(read(buffer)) == DEFAULT_BATCH
    assert names(read(buffer, limit=10_000)) == [str(number) for number in range(MAX_BATCH)]


def test_what_groups_received_stays_readable_and_theirs(buffer, trajectory, take):
    buffer.append(trajectory("a"), trajectory("b"))
    stream = buffer.subscribe()
    first, _ = take(stream, 2)
    buffer.ack(first)
    assert names(read(buffer)) == ["a", "b"]
    (group,) = buffer.stats().groups
    assert (group.pending, group.lag) == (1, 0)
    buffer.append(trajectory("c"))
    assert names(read(buffer)) == ["a", "b", "c"]
    assert list(take(stream, 1).values()) == ["c"]


def test_deleted_entries_are_absent(redis_server, buffer, trajectory):
    buffer.append(*(trajectory(str(n), tenant=("acme", "other")[n % 2]) for n in range(40)))
    # Not the buffer's own: it has no trajectory.
    redis_server.client.xadd("aurora:trajectories", {"other": "x"})
    assert buffer.delete("acme") == 20
    odd = [str(number) for number in range(1, 40, 2)]
    assert names(read(buffer, limit=20)) == odd
    assert names(read(buffer)) == odd


def test_large_entries_come_in_smaller_numbers(buffer, trajectory):
    sizes = [RESPONSE_BYTES // 3, RESPONSE_BYTES // 3, RESPONSE_BYTES + 100, 10, 10]
    for number, size in enumerate(sizes):
        one = trajectory(str(number))
        one.domain = "x" * size
        buffer.stub.Append(iter([AppendRequest(trajectories=[one])]), timeout=30)
    after, received = "", []
    while entries := read(buffer, after):
        received.append(names(entries))
        after = entries[-1].id
    assert received == [["0", "1"], ["2"], ["3", "4"]]


@pytest.mark.parametrize("after", ["1", "a-b", "1-1-1", f"{2**64}-0", "$"])
def test_a_position_that_is_none_is_named(buffer, after):
    with pytest.raises(grpc.RpcError) as refused:
        read(buffer, after)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.details().startswith("after is not a stream id: expected <millisec")


def test_an_unreachable_redis_is_reported(redis_server, buffer):
    redis_server.kill()
    with pytest.raises(grpc.RpcError) as refused:
        read(buffer)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Redis cannot read trajectories now" in refused.value.details()
