import re

import pytest

from aurora_buffer.requirement import unmet_requirement

FINE = {
    "redis_version": "7.4.1",
    "redis_mode": "standalone",
    "maxmemory": 1 << 30,
    "maxmemory_policy": "noeviction",
}


@pytest.mark.parametrize(
    "differing",
    [
        {},
        {"redis_version": "6.2.0"},
        {"redis_version": "10.0"},
        {"maxmemory_policy": "allkeys-lru", "maxmemory": 0},
        # Evicts only keys that expire.
        {"maxmemory_policy": "volatile-lru"},
    ],
)
def test_what_can_serve(differing):
    assert unmet_requirement(FINE | differing) is None


def test_what_a_proxy_does_not_tell_is_not_judged():
    assert unmet_requirement({}) is None


@pytest.mark.parametrize(
    ("differing", "problem"),
    [
        ({"redis_mode": "cluster"}, "Redis runs in cluster mode: the buffer needs one without"),
        ({"redis_mode": "sentinel"}, "Redis runs in sentinel mode"),
        ({"redis_version": "6.0.16"}, "Redis 6.0.16 is too old: the buffer needs 6.2 or later"),
        ({"redis_version": "5.0.14"}, "Redis 5.0.14 is too old"),
        ({"maxmemory_policy": "allkeys-lru"}, "allkeys-lru.*set it to noeviction"),
        ({"maxmemory_policy": "allkeys-random"}, "allkeys-random.*set it to noeviction"),
    ],
)
def test_what_cannot_serve_is_named(differing, problem):
    found = unmet_requirement(FINE | differing)
    assert found is not None
    assert re.search(problem, found)
