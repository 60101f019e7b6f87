"""Bounded by bytes and by age, with an exact account over restarts and deletions."""

import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from aurora.buffer.v1.buffer_pb2 import AppendRequest, Trajectory

pytestmark = pytest.mark.redis

STREAM = "aurora:trajectories"


def _stored_bytes(redis_server) -> int:
    """Counted from the entries themselves."""
    entries = redis_server.client.xrange(STREAM)
    return sum(len(fields[b"tenant"]) + len(fields[b"trajectory"]) for _, fields in entries)


def _metric(buffer, name: str) -> float:
    url = f"http://127.0.0.1:{buffer.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def test_oldest_go_when_there_are_too_many_bytes(redis_server, serve, trajectory, take):
    sent = [trajectory(str(number), tokens=100 + number) for number in range(30)]
    sizes = [one.ByteSize() + len(one.tenant) for one in sent]
    buffer = serve(max_bytes=sum(sizes[-10:]))
    for one in sent:
        buffer.append(one)
        stats = buffer.stats()
        assert stats.bytes == _stored_bytes(redis_server) <= sum(sizes[-10:])
    assert list(take(buffer.subscribe(), 10).values()) == [str(n) for n in range(20, 30)]
    assert stats.entries == 10
    assert stats.appended_total == 30
    assert _metric(buffer, "aurora_buffer_trimmed_total") == 20
    assert _metric(buffer, "aurora_buffer_bytes") == stats.bytes


def test_account_is_exact_over_kills(redis_server, buffer, trajectory):
    buffer.append(trajectory("a"), trajectory("b", tokens=50))
    before = buffer.stats()
    redis_server.kill()
    redis_server.start()
    buffer.kill()
    buffer.start()
    assert buffer.stats() == before
    buffer.append(trajectory("c", tenant="other"))
    assert buffer.stats().bytes == _stored_bytes(redis_server)


@pytest.mark.parametrize("redis_too", [False, True])
def test_account_is_exact_over_kills_within_appends(redis_server, buffer, trajectory, redis_too):
    acknowledged: list[str] = []

    def append_until_killed(kill: int) -> None:
        for number in range(10_000):
            names = [f"{kill}-{number}-{part}" for part in range(8)]
            request = AppendRequest(trajectories=[trajectory(name, tokens=500) for name in names])
            try:
                buffer.stub.Append(iter([request]), timeout=30)
            except grpc.RpcError:
                return
            acknowledged.extend(names)
            one_is_stored.set()

    with ThreadPoolExecutor() as pool:
        for kill in range(4):
            one_is_stored = threading.Event()
            appending = pool.submit(append_until_killed, kill)
            assert one_is_stored.wait(30)
            if redis_too:
                redis_server.kill()
                redis_server.start()
            buffer.kill()
            appending.result()
            buffer.start()
            stats = buffer.stats()
            assert stats.bytes == _stored_bytes(redis_server)
            assert stats.entries == redis_server.client.xlen(STREAM)
    stored = [fields[b"trajectory"] for _, fields in redis_server.client.xrange(STREAM)]
    assert {Trajectory.FromString(one).request_id for one in stored} >= set(acknowledged)


def test_lower_bound_after_a_restart_holds_at_once(serve, trajectory, until):
    roomy = serve()
    for _ in range(3):
        roomy.append(*(trajectory(str(number)) for number in range(1000)))
    roomy.kill()
    tight = serve(max_bytes=1000)
    until(lambda: tight.stats().bytes <= 1000, "the stream is within its new bound")
    assert 0 < tight.stats().entries < 20


def test_entries_beyond_their_age_go(serve, trajectory, until):
    buffer = serve(max_age_seconds=1)
    buffer.append(trajectory("a"))
    until(lambda: buffer.stats().entries == 0, "the entry is gone")
    stats = buffer.stats()
    assert (stats.bytes, stats.first_id, stats.last_id) == (0, "", "")
    assert stats.appended_total == 1


def test_dropping_unacknowledged_entries_is_counted(serve, trajectory, take):
    one = trajectory("0")
    buffer = serve(max_bytes=4 * (one.ByteSize() + len(one.tenant)))
    buffer.append(*(trajectory(str(number)) for number in range(4)))
    stream = buffer.subscribe(batch=2)
    first, *_ = take(stream, 4)
    buffer.ack(first)
    # Drops the acknowledged one and the three that are pending.
    buffer.append(*(trajectory(str(number)) for number in range(4, 8)))
    assert _metric(buffer, "aurora_buffer_trimmed_total") == 4
    assert _metric(buffer, "aurora_buffer_trimmed_unacknowledged_total") == 3
    assert list(take(stream, 4).values()) == ["4", "5", "6", "7"]
    (group,) = buffer.stats().groups
    assert (group.pending, group.lag) == (4, 0)


def test_stats_of_groups(buffer, trajectory, take):
    buffer.append(*(trajectory(str(number)) for number in range(10)))
    stream = buffer.subscribe(batch=1)
    ids = list(take(stream, 10))
    buffer.ack(*ids[:4])
    stats = buffer.stats()
    (group,) = stats.groups
    assert (group.name, group.consumers, group.pending, group.lag) == ("trainer", 1, 6, 0)
    assert (stats.first_id, stats.last_id) == (ids[0], ids[-1])
    stream.cancel()
    assert stats.entries == 10


def test_lag_counts_what_was_not_delivered(redis_server, buffer, trajectory):
    redis_server.client.xgroup_create(STREAM, "late", "0", mkstream=True)
    buffer.append(*(trajectory(str(number)) for number in range(5)))
    redis_server.client.xreadgroup("late", "one", {STREAM: ">"}, count=2)
    (group,) = buffer.stats().groups
    assert (group.pending, group.lag) == (2, 3)


def test_metrics_count_the_way_of_an_entry(buffer, trajectory, take, until):
    buffer.append(trajectory("a"), trajectory("b"))
    buffer.ack(*take(buffer.subscribe(), 2))
    for name in ("appended", "acknowledged"):
        assert _metric(buffer, f"aurora_buffer_{name}_total") == 2
    until(lambda: _metric(buffer, "aurora_buffer_delivered_total") == 2, "delivery is counted")
