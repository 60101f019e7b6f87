"""At least once, over the death of each process."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from aurora.buffer.v1.buffer_pb2 import AppendRequest

pytestmark = pytest.mark.redis


def test_entries_come_in_order_and_whole(buffer, trajectory):
    sent = [trajectory(str(number), tokens=number) for number in range(10)]
    response = buffer.append(*sent)
    stream = buffer.subscribe()
    received = []
    while len(received) < 10:
        received += next(stream).entries
    assert [entry.trajectory for entry in received] == sent
    assert response.appended == 10
    assert response.last_id == received[-1].id


def test_subscription_gets_what_is_appended_later(buffer, trajectory, take):
    stream = buffer.subscribe()
    for number in range(3):
        buffer.append(trajectory(str(number)))
        assert list(take(stream, 1).values()) == [str(number)]


def test_one_call_may_send_many_messages(buffer, trajectory, take):
    def requests():
        for number in range(100):
            yield AppendRequest(trajectories=[trajectory(str(number))])

    response = buffer.stub.Append(requests(), timeout=30)
    assert response.appended == 100
    assert list(take(buffer.subscribe(), 100).values()) == [str(n) for n in range(100)]


def test_nothing_to_append(buffer):
    assert buffer.append().last_id == ""


def test_two_groups_each_get_everything(buffer, trajectory, take):
    buffer.append(trajectory("a"), trajectory("b"))
    for group in ("trainer", "audit"):
        assert list(take(buffer.subscribe(group=group), 2).values()) == ["a", "b"]


def test_consumers_share_a_group(buffer, trajectory, take):
    first, second = buffer.subscribe("one", batch=1), buffer.subscribe("two", batch=1)
    buffer.append(*(trajectory(str(number)) for number in range(20)))
    with ThreadPoolExecutor() as pool:
        # Each has its own share, whatever its size: read both until together they have all.
        received: list[str] = []

        def read(stream):
            try:
                for response in stream:
                    received.extend(entry.trajectory.request_id for entry in response.entries)
                    if len(received) == 20:
                        first.cancel()
                        second.cancel()
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.CANCELLED  # noqa: PT017 - of both

        list(pool.map(read, (first, second)))
    assert sorted(received, key=int) == [str(number) for number in range(20)]


def test_killed_consumer_gets_its_unacknowledged_entries_again(buffer, trajectory, take):
    buffer.append(*(trajectory(str(number)) for number in range(10)))
    script = Path(__file__).with_name("consumer.py")
    command = [sys.executable, script, f"127.0.0.1:{buffer.port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
        seen = [consumer.stdout.readline().strip() for _ in range(7)]
        consumer.kill()
    assert seen == [str(number) for number in range(7)]
    # The kill may have come before or after the next was acknowledged.
    received = list(take(buffer.subscribe(), 5).values())
    assert received[:4] == ["1", "3", "5", "7"]
    assert received[4] in ("8", "9")


def test_killed_server_loses_nothing(buffer, trajectory, take):
    buffer.append(*(trajectory(str(number)) for number in range(6)))
    ids = take(buffer.subscribe(), 4)
    buffer.ack(next(iter(ids)))
    buffer.kill()
    buffer.start()
    buffer.append(trajectory("6"))
    assert list(take(buffer.subscribe(), 6).values()) == ["1", "2", "3", "4", "5", "6"]


def test_killed_redis_loses_nothing_acknowledged(redis_server, buffer, trajectory):
    """Kills Redis again and again under appends; the subscription resumes by itself."""
    stored, received, kills = [], set(), 5
    with ThreadPoolExecutor() as pool:
        stream = buffer.subscribe()

        def receive():
            for response in stream:
                for entry in response.entries:
                    received.add(entry.trajectory.request_id)
                    buffer.ack(entry.id)
                if "last" in received:
                    return

        receiving = pool.submit(receive)
        for kill in range(kills):
            appending = pool.submit(_append_many, buffer, trajectory, kill, stored)
            redis_server.kill()
            redis_server.start()
            appending.result()
        buffer.append(trajectory("last"))
        receiving.result()
    assert len(stored) >= kills
    assert received >= set(stored)


def _append_many(buffer, trajectory, kill, stored):
    for number in range(20):
        name = f"{kill}-{number}"
        buffer.append(trajectory(name))
        stored.append(name)


def test_acknowledged_entries_stay_so_over_a_kill_of_redis(redis_server, buffer, trajectory, take):
    buffer.append(trajectory("a"), trajectory("b"))
    first, _ = take(buffer.subscribe(), 2)
    assert buffer.ack(first) == 1
    redis_server.kill()
    redis_server.start()
    assert list(take(buffer.subscribe(), 1).values()) == ["b"]
    assert buffer.ack(first) == 0


def test_lost_group_is_recreated(redis_server, buffer, trajectory, take):
    buffer.append(trajectory("a"))
    stream = buffer.subscribe()
    take(stream, 1)
    redis_server.client.flushall()
    buffer.append(trajectory("b"))
    assert list(take(stream, 1).values()) == ["b"]


def test_calls_report_that_redis_is_unreachable(redis_server, buffer, trajectory, until):
    redis_server.kill()
    with pytest.raises(grpc.RpcError) as caught:
        buffer.append(trajectory("a"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "Redis cannot store trajectories now" in caught.value.details()
    until(lambda: buffer.health() == "NOT_SERVING", "the buffer says so in its health")
    redis_server.start()
    until(lambda: buffer.health() == "SERVING", "the buffer is back")
    assert buffer.append(trajectory("a")).appended == 1


def test_redis_down_at_start(redis_server, serve, trajectory, take, until):
    redis_server.kill()
    buffer = serve(serving=False)
    stream = buffer.subscribe()
    assert "not serving until Redis is able again" in buffer.log()
    redis_server.start()
    until(lambda: buffer.health() == "SERVING", "the buffer has found Redis")
    buffer.append(trajectory("a"))
    assert list(take(stream, 1).values()) == ["a"]


def test_stop_ends_subscriptions_at_once(buffer, trajectory, take):
    stream = buffer.subscribe()
    buffer.append(trajectory("a"))
    take(stream, 1)
    buffer.process.terminate()
    with pytest.raises(grpc.RpcError) as caught:
        take(stream, 1)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert buffer.process.wait(10) == 0
