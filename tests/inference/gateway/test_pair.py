"""Orders and lengths of blocks."""

from __future__ import annotations

import pytest

from aurora_inference.gateway.pair import block_seconds, order


def test_orders_are_fair_and_crossed_replicas_disagree():
    found = [order("chat-1", pair, crossed=False) for pair in range(1, 1001)]
    assert 450 < sum(first == "candidate" for first, _ in found) < 550
    assert all(set(one) == {"stable", "candidate"} for one in found)
    assert [order("chat-1", pair, crossed=True) for pair in range(1, 1001)] == [
        one[::-1] for one in found
    ]
    assert found != [order("chat-2", pair, crossed=False) for pair in range(1, 1001)]


@pytest.mark.parametrize(
    ("bps", "rate", "candidate", "stable"),
    [
        (5000, 3.0, 5.0, 5.0),  # thirty requests in a pair
        (5000, 100.0, 2.0, 2.0),  # blocks are not shorter
        (5000, 0.0, 600.0, 600.0),  # nor longer
        (2000, 1.0, 6.0, 24.0),
        (8000, 1.0, 24.0, 6.0),
        (500, 100.0, 2.0, 38.0),
        (500, 0.0, 600 / 19, 600.0),
    ],
)
def test_blocks_share_the_time_and_follow_the_traffic(bps, rate, candidate, stable):
    found = block_seconds(bps, requests_per_second=rate, former_seconds=300)
    assert found == pytest.approx({"candidate": candidate, "stable": stable})


def test_blocks_begin_short_and_grow_slowly():
    lengths, former = [], 0.0
    for _ in range(6):
        former = block_seconds(5000, requests_per_second=0, former_seconds=former)["stable"]
        lengths.append(former)
    assert lengths == [2, 8, 32, 128, 512, 600]
