"""Deleting a tenant leaves nothing of it, and everything else as it was."""

import pytest

pytestmark = pytest.mark.redis


def test_everything_of_one_tenant_goes(redis_server, buffer, trajectory, take):
    buffer.append(*(trajectory(str(n), tenant="acme" if n % 3 else "acme two") for n in range(900)))
    buffer.append(*(trajectory(str(n), tenant="acme") for n in range(900, 1800)))
    assert buffer.delete("acme") == 1500
    left = take(buffer.subscribe(batch=128), 300)
    assert list(left.values()) == [str(n) for n in range(0, 900, 3)]
    assert buffer.delete("acme") == 0
    assert buffer.stats().entries == 300
    assert buffer.delete("acme two") == 300
    assert buffer.stats().bytes == 0


def test_subscription_continues_after_pending_entries_were_deleted(buffer, trajectory, take):
    buffer.append(*(trajectory(str(n), tenant=("acme", "other")[n % 2]) for n in range(10)))
    stream = buffer.subscribe(batch=2)
    take(stream, 4)
    assert buffer.delete("acme") == 5
    # What comes after was either on its way already or is the other tenant's.
    received = take(stream, 1)
    while "9" not in received.values():
        received |= take(stream, 1)
    stream.cancel()
    # All five are still to be acknowledged; of the deleted ones nothing is left.
    again = take(buffer.subscribe(), 5)
    assert list(again.values()) == ["1", "3", "5", "7", "9"]
    assert buffer.ack(*again) == 5
    (group,) = buffer.stats().groups
    assert (group.pending, group.lag) == (0, 0)


def test_pending_entries_deleted_by_others_are_acknowledged_away(
    redis_server, buffer, trajectory, take, until
):
    buffer.append(*(trajectory(str(number)) for number in range(5)))
    ids = list(take(buffer.subscribe(), 5))
    redis_server.client.xdel("aurora:trajectories", *ids[:2], ids[3])
    stream = buffer.subscribe(batch=1)
    assert list(take(stream, 2)) == [ids[2], ids[4]]
    until(lambda: buffer.stats().groups[0].pending == 2, "the deleted are not pending")


def test_dead_consumers_deleted_entries_do_not_stop_its_heir(
    redis_server, serve, trajectory, take, until
):
    buffer = serve(dead_after_seconds=1)
    buffer.append(trajectory("a"), trajectory("b"))
    stream = buffer.subscribe("dead")
    first, second = take(stream, 2)
    stream.cancel()
    redis_server.client.xdel("aurora:trajectories", first)
    assert list(take(buffer.subscribe("heir"), 1)) == [second]
    until(lambda: buffer.stats().groups[0].pending == 1, "the deleted one is not pending")
