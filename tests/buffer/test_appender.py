"""An append is stored and counted whole, or not at all."""

import asyncio
import time
from importlib.resources import files

import pytest

from aurora_buffer.appender import Appender
from aurora_buffer.connection import connect
from aurora_buffer.entry import NewEntry
from aurora_buffer.entry_id import EntryId
from aurora_buffer.metrics import Metrics
from aurora_buffer.stream import Bounds, TrajectoryStream
from aurora_common.errors import AuroraError, OverloadedError

pytestmark = pytest.mark.redis

KEYS = ("stream", "{stream}:index", "{stream}:totals")
HOUR_MS = 3_600_000


def _entries(*names: str) -> list[NewEntry]:
    return [NewEntry(b"acme", name.encode()) for name in names]


def _stored(client) -> list[bytes]:
    """What the stream holds, once index and totals are found to say the same."""
    entries = client.xrange("stream")
    sizes = [sum(map(len, (f[b"tenant"], f[b"trajectory"]))) for _, f in entries]
    members = [
        b"%b %d %b" % (EntryId.parsed(entry_id.decode()).padded.encode(), size, f[b"tenant"])
        for (entry_id, f), size in zip(entries, sizes, strict=True)
    ]
    assert client.zrange(KEYS[1], 0, -1) == members
    assert int(client.hget(KEYS[2], "bytes") or 0) == sum(sizes)
    return [fields[b"trajectory"] for _, fields in entries]


def _append_as_another(client, entry_id: EntryId, trajectory: bytes) -> None:
    """As a buffer of a version does that lets Redis choose ids and keeps no newest one."""
    client.xadd("stream", {"tenant": b"acme", "trajectory": trajectory}, id=str(entry_id))
    size = len(b"acme" + trajectory)
    client.zadd(KEYS[1], {b"%b %d acme" % (entry_id.padded.encode(), size): 0})
    client.hincrby(KEYS[2], "appended", 1)
    client.hincrby(KEYS[2], "bytes", size)


@pytest.fixture
async def redis(redis_server):
    connection = connect(redis_server.url)
    yield connection
    await connection.aclose()


def _stream(redis) -> TrajectoryStream:
    return TrajectoryStream(redis, "stream", Bounds(1 << 30, 3600), Metrics())


async def test_ids_are_of_redis_clock(redis_server, redis):
    before = time.time_ns() // 1_000_000
    last = await _stream(redis).append(_entries("a", "b"))
    assert before - 1000 <= EntryId.parsed(last).milliseconds <= time.time_ns() // 1_000_000
    assert _stored(redis_server.client) == [b"a", b"b"]


async def test_two_buffers_append_to_one_stream(redis_server, redis):
    streams = [_stream(redis), _stream(redis)]
    await asyncio.gather(
        *(streams[n % 2].append(_entries(f"{n} first", f"{n} second")) for n in range(60))
    )
    stored = _stored(redis_server.client)
    assert len(stored) == 120
    # Nothing comes between the entries of one append.
    for first, second in zip(stored[::2], stored[1::2], strict=True):
        assert first.split() == [second.split()[0], b"first"]


async def test_append_goes_behind_what_another_version_appended(redis_server, redis):
    client = redis_server.client
    future = time.time_ns() // 1_000_000 + HOUR_MS
    _append_as_another(client, EntryId(future, 0), b"a")
    stream = _stream(redis)
    assert await stream.append(_entries("b")) == f"{future}-1"
    _append_as_another(client, EntryId(future, 2), b"c")
    assert await stream.append(_entries("d")) == f"{future}-3"
    assert _stored(client) == [b"a", b"b", b"c", b"d"]


async def test_newest_entry_deleted_by_another_version_is_not_forgotten(redis_server, redis):
    client = redis_server.client
    future = time.time_ns() // 1_000_000 + HOUR_MS
    _append_as_another(client, EntryId(future, 5), b"a")
    client.xdel("stream", f"{future}-5")
    client.delete(KEYS[1])
    client.hset(KEYS[2], "bytes", 0)
    assert await _stream(redis).append(_entries("b")) == f"{future}-6"
    assert _stored(client) == [b"b"]


async def test_append_that_is_late_for_some_of_its_ids_is_stored_whole(redis_server, redis):
    client = redis_server.client
    future = time.time_ns() // 1_000_000 + HOUR_MS
    _append_as_another(client, EntryId(future, 0), b"a")
    first, second = Appender(redis, KEYS), Appender(redis, KEYS)
    # From now on each counts on from the id that it knows as the newest.
    await first.append(_entries("b"))
    await second.append(_entries("c", "d"))
    appended = await first.append(_entries("e", "f", "g", "h", "i"))
    # Its first ids were taken by the second; the others were given up.
    assert appended.last_id == EntryId(future, 11)
    assert _stored(client) == [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i"]
    # So does one that is late for all of them.
    assert (await second.append(_entries("j"))).last_id == EntryId(future, 12)
    assert _stored(client)[-1] == b"j"


async def test_cancelled_append_is_counted_if_stored(redis_server, redis):
    stream = _stream(redis)
    for pause in range(30):
        appending = asyncio.create_task(stream.append([NewEntry(b"acme", bytes(100_000))] * 4))
        # Given up at another point each time.
        for _ in range(pause):
            await asyncio.sleep(0)
        appending.cancel()
    await stream.append(_entries("last"))
    stored = _stored(redis_server.client)
    assert len(stored) % 4 == 1
    assert stored[-1] == b"last"


async def test_most_entries_at_once(redis_server, redis):
    await _stream(redis).append(_entries(*map(str, range(1999))))
    assert len(_stored(redis_server.client)) == 1999


async def test_redis_may_forget_its_scripts(redis_server, redis):
    stream = _stream(redis)
    await stream.append(_entries("a"))
    redis_server.client.script_flush()
    await stream.append(_entries("b"))
    assert _stored(redis_server.client) == [b"a", b"b"]


async def test_out_of_memory_stores_nothing_and_reveals_no_content(redis_server, redis):
    stream = _stream(redis)
    await stream.append(_entries("a"))
    redis_server.client.config_set("maxmemory", 1)
    with pytest.raises(OverloadedError) as caught:
        await stream.append([NewEntry(b"secret tenant", b"secret trajectory")])
    assert "secret" not in str(caught.value)
    redis_server.client.config_set("maxmemory", 0)
    assert _stored(redis_server.client) == [b"a"]


def test_memory_that_was_short_for_another_script_is_forgotten(redis_server):
    """Redis 6.2 remembers it from one script to the next, and has no check of XADD at EXEC."""
    client = redis_server.client
    script = (files("aurora_buffer") / "scripts" / "append.lua").read_bytes()
    member = EntryId(1, 1).padded + " 5 acme"
    connection = client.connection_pool.get_connection()
    for command in (
        ("MULTI",),
        ("EVAL", script, 3, *KEYS, 5, "1-1", member),
        ("XADD", "stream", "1-1", "tenant", "acme", "trajectory", "a"),
    ):
        connection.send_command(*command)
        connection.read_response()
    client.config_set("maxmemory", 1)
    client.eval("return 1", 0)
    client.config_set("maxmemory", 1 << 40)
    connection.send_command("EXEC")
    (stored, *_), entry_id = connection.read_response()
    client.connection_pool.release(connection)
    assert (stored, entry_id) == (1, b"1-1")
    assert _stored(client) == [b"a"]


async def test_script_that_is_not_allowed_leaves_nothing(redis_server, redis):
    client = redis_server.client
    client.execute_command("ACL", "SETUSER", "default", "-hincrby")
    with pytest.raises(AuroraError, match="Redis cannot store trajectories"):
        await _stream(redis).append(_entries("a"))
    client.execute_command("ACL", "SETUSER", "default", "+hincrby")
    assert client.xlen("stream") == 0


def _append_only_file(folder):
    """The one that is written to, of Redis 6.2 or 7."""
    (file,) = (*folder.glob("appendonlydir/*.incr.aof"), *folder.glob("appendonly.aof"))
    return file


async def test_crash_of_redis_within_an_append_leaves_all_or_nothing_of_it(
    redis_server, redis, tmp_path
):
    stream = _stream(redis)
    file = _append_only_file(tmp_path / "redis")
    await stream.append(_entries("a", "b"))
    acknowledged_bytes = file.stat().st_size
    await stream.append(_entries("c", "d", "e"))
    redis_server.kill()
    whole = file.read_bytes()
    appended = whole[acknowledged_bytes:]
    starts = [i for i in range(len(appended)) if appended.startswith(b"\r\n*", i)]
    assert len(starts) > 4
    for kept in (1, *(start + 2 for start in starts), len(appended) - 1, len(appended)):
        file.write_bytes(whole[: acknowledged_bytes + kept])
        redis_server.start()
        expected = [b"a", b"b", b"c", b"d", b"e"] if kept == len(appended) else [b"a", b"b"]
        assert _stored(redis_server.client) == expected
        await _stream(redis).append(_entries("after"))
        assert _stored(redis_server.client) == [*expected, b"after"]
        redis_server.kill()
