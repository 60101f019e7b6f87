"""What becomes of a consumer's entries when it is gone, and when it is only slow."""

import grpc
import pytest

pytestmark = pytest.mark.redis


def _consumers(redis_server) -> dict[str, int]:
    rows = redis_server.client.xinfo_consumers("aurora:trajectories", "trainer")
    return {row["name"].decode(): row["pending"] for row in rows}


def test_dead_consumers_entries_go_to_a_live_one(redis_server, serve, trajectory, take, until):
    buffer = serve(dead_after_seconds=1)
    buffer.append(*(trajectory(str(number)) for number in range(6)))
    dead = buffer.subscribe("dead", batch=6)
    ids = take(dead, 6)
    acknowledged, *left = ids
    buffer.ack(acknowledged)
    dead.cancel()
    alive = buffer.subscribe("alive")
    assert take(alive, 5) == {entry_id: ids[entry_id] for entry_id in left}
    until(lambda: _consumers(redis_server) == {"alive": 5}, "the dead consumer is deleted")
    assert buffer.ack(*left) == 5


def test_live_consumer_keeps_entries_however_long(redis_server, serve, trajectory, take, until):
    buffer = serve(dead_after_seconds=1)
    buffer.append(*(trajectory(str(number)) for number in range(4)))
    # Acknowledges nothing, and has read since long before `dead` falls silent.
    slow = buffer.subscribe("slow", batch=4)
    take(slow, 4)
    dead = buffer.subscribe("dead", batch=1)
    of_the_dead = {}
    while not of_the_dead:
        # More at once than `slow` takes at once.
        buffer.append(*(trajectory("either's") for _ in range(8)))
        until(lambda: _all_are_delivered(redis_server), "all are delivered")
        of_the_dead = _delivered_to(redis_server, "dead")
    dead.cancel()
    alive = buffer.subscribe("alive")
    assert take(alive, len(of_the_dead)).keys() == of_the_dead
    assert _consumers(redis_server)["slow"] >= 4


def _all_are_delivered(redis_server) -> bool:
    stored = redis_server.client.xlen("aurora:trajectories")
    return sum(_consumers(redis_server).values()) == stored


def _delivered_to(redis_server, consumer: str) -> set[str]:
    pending = redis_server.client.xpending_range(
        "aurora:trajectories", "trainer", "-", "+", 100, consumer
    )
    return {row["message_id"].decode() for row in pending}


def test_consumer_that_does_not_read_at_all_keeps_entries(redis_server, serve, trajectory, take):
    """Its responses fill the connection, and its subscription waits within a write."""
    buffer = serve(dead_after_seconds=1)
    for number in range(8):
        buffer.append(trajectory(str(number), tokens=200_000))
    stuck = buffer.subscribe("stuck", batch=1)
    first = next(stuck)
    dead = buffer.subscribe("dead", batch=1)
    taken = take(dead, 1)
    dead.cancel()
    alive = buffer.subscribe("alive", batch=1)
    seen = take(alive, 1)
    while not taken.keys() <= seen.keys():
        seen |= take(alive, 1)
    pending = _consumers(redis_server)["stuck"]
    assert pending >= 1
    assert first.entries[0].id not in seen


def test_subscribing_again_ends_the_older_subscription(buffer, trajectory, take):
    buffer.append(trajectory("a"))
    older = buffer.subscribe()
    take(older, 1)
    newer = buffer.subscribe()
    assert list(take(newer, 1).values()) == ["a"]
    with pytest.raises(grpc.RpcError) as caught:
        take(older, 1)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    buffer.append(trajectory("b"))
    assert list(take(newer, 1).values()) == ["b"]


def test_reclaimed_entries_survive_the_heirs_death(serve, trajectory, take):
    buffer = serve(dead_after_seconds=1)
    buffer.append(trajectory("a"))
    for consumer in ("first", "second", "third"):
        stream = buffer.subscribe(consumer)
        assert list(take(stream, 1).values()) == ["a"]
        stream.cancel()
