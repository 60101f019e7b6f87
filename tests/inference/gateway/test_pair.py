"""Orders and lengths of blocks."""

from __future__ import annotations

import pytest

from aurora_inference.contract import Served
from aurora_inference.gateway.pair import Block, Pairs, block_seconds, order


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


def block(pair, arm, *, rollout="r"):
    return Block(rollout, pair, arm, 5000, "sha256:a", "sha256:b")


def begun(pairs, number, **options):
    """Both blocks of a pair, with one request in each that has not ended."""
    blocks = [block(number, arm, **options) for arm in ("stable", "candidate")]
    for one in blocks:
        pairs.begin(one)
    return blocks


def end(pairs, one, *, accepted=2):
    pairs.end(one, Served(4, accepted, 70, 9), failed=False)


def told(pairs, now):
    return [(outcome.pair, outcome.arm) for _, outcome in pairs.due(now)]


def test_a_pair_is_told_of_after_those_before_it():
    pairs = Pairs()
    first, second = begun(pairs, 1), begun(pairs, 2)
    for blocks in (first, second):
        pairs.close(blocks[1], now=10.0)
    for one in (*second, first[0]):
        end(pairs, one)
        assert told(pairs, 20.0) == []
    end(pairs, first[1])
    both = ["stable", "candidate"]
    assert told(pairs, 20.0) == [(1, arm) for arm in both] + [(2, arm) for arm in both]
    assert told(pairs, 20.0) == []


def test_a_request_that_hangs_is_given_up_and_has_failed():
    pairs = Pairs()
    stable, candidate = begun(pairs, 1)
    pairs.close(candidate, now=10.0)
    end(pairs, stable)
    assert told(pairs, 609.9) == []
    (_, served), (_, hung) = pairs.due(610.0)
    assert (served.requests, served.failed_requests, served.ending) == (1, 0, "completed")
    assert (hung.requests, hung.failed_requests, hung.ending) == (1, 1, "failed")
    end(pairs, candidate)
    assert told(pairs, 700.0) == []


def test_a_pair_that_is_discarded_holds_up_nothing():
    pairs = Pairs()
    first, second = begun(pairs, 1), begun(pairs, 2)
    pairs.discard(first[0])
    pairs.close(second[1], now=10.0)
    for one in second:
        end(pairs, one)
    assert [pair for pair, _ in told(pairs, 10.0)] == [2, 2]


def test_requests_of_a_former_rollout_are_no_evidence_of_the_next():
    pairs = Pairs()
    former = begun(pairs, 1)
    pairs.close(former[1], now=10.0)
    blocks = begun(pairs, 1, rollout="next")
    for one in (*former, *blocks):
        end(pairs, one, accepted=1 if one in blocks else 4)
    pairs.close(blocks[1], now=20.0)
    found = pairs.due(20.0)
    assert [rollout for rollout, _ in found] == ["next", "next"]
    assert all(one.served.accepted_tokens == 1 for _, one in found)
