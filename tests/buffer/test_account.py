"""The scripts against a model: any sequence of appends, deletions and trims."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aurora_buffer.connection import connect
from aurora_buffer.entry import NewEntry
from aurora_buffer.metrics import Metrics
from aurora_buffer.stream import Bounds, TrajectoryStream

pytestmark = pytest.mark.redis

TENANTS = (b"", b"a", b"a b", b"b 12 a", "ü\n\0".encode())
MAX_BYTES = 400

appends = st.lists(
    st.builds(NewEntry, tenant=st.sampled_from(TENANTS), trajectory=st.binary(max_size=90)),
    min_size=1,
    max_size=6,
)
operations = st.lists(appends | st.sampled_from(TENANTS), max_size=20)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations)
def test_stream_and_account_agree_with_the_model(redis_server, steps):
    redis_server.client.flushall()
    asyncio.run(_follow(redis_server.url, steps))


async def _follow(url, steps):
    redis = connect(url)
    stream = TrajectoryStream(redis, "stream", Bounds(MAX_BYTES, 3600), Metrics())
    model: list[NewEntry] = []
    for step in steps:
        if isinstance(step, bytes):
            # A tenant to delete.
            deleted = await stream.delete_tenant(step.decode())
            assert deleted == sum(entry.tenant == step for entry in model)
            model = [entry for entry in model if entry.tenant != step]
        else:
            await stream.append(step)
            model += step
            while sum(entry.size_bytes for entry in model) > MAX_BYTES:
                model.pop(0)
        stored = await redis.xrange("stream")
        assert [NewEntry(f[b"tenant"], f[b"trajectory"]) for _, f in stored] == model
        stats = await stream.stats()
        assert stats.entries == len(model)
        assert stats.bytes == sum(entry.size_bytes for entry in model)
        edges = (stored[0][0].decode(), stored[-1][0].decode()) if stored else ("", "")
        assert (stats.first_id, stats.last_id) == edges
    await redis.aclose()
