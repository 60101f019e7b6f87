"""What the replay keeps, what it evicts, and what batches are drawn from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_trainer.data.replay import (
    BatchDraw,
    Replay,
    ReplayLimits,
    Reservoir,
    SeatDraw,
    is_held_out,
)

NOTHING_HELD_OUT = ReplayLimits(holdout_percent=0)


def filled(limits: ReplayLimits, samples, *, seed: int = 0) -> Replay:
    replay = Replay(limits)
    for sample, draw in zip(
        samples, np.random.default_rng(seed).random((len(samples), 2)), strict=True
    ):
        replay.add(sample, SeatDraw(*draw))
    return replay


def test_the_window_keeps_the_newest_by_count(plain_sample):
    replay = filled(
        ReplayLimits(window_count=3, holdout_percent=0), [plain_sample(i) for i in range(10)]
    )
    assert [sample.stream_id for sample in replay.window.members] == ["7-0", "8-0", "9-0"]


def test_the_window_keeps_the_newest_by_bytes_and_never_less_than_one(plain_sample):
    size = plain_sample(0).size_bytes
    samples = [plain_sample(i) for i in range(5)]
    limits = ReplayLimits(window_bytes=2 * size, holdout_percent=0)
    assert len(filled(limits, samples).window.members) == 2
    limits = ReplayLimits(window_bytes=1, holdout_percent=0)
    assert len(filled(limits, samples).window.members) == 1


def test_every_trajectory_has_the_same_chance_of_a_seat(plain_sample):
    samples = [plain_sample(i) for i in range(20)]
    random = np.random.default_rng(1)
    counts = Counter()
    rounds = 4000
    for _ in range(rounds):
        reservoir = Reservoir(capacity=5)
        for sample in samples:
            reservoir.offer(sample, random.random())
        counts.update(sample.stream_id for sample in reservoir.members)
    expected = rounds * 5 / 20
    chi_square = sum((counts[s.stream_id] - expected) ** 2 / expected for s in samples)
    # 19 degrees of freedom (18 at most, in truth: the seats sum up): beyond 50 is one in 10^4.
    assert chi_square < 50


def test_a_shrunk_reservoir_is_still_uniform(plain_sample):
    samples = [plain_sample(i) for i in range(20)]
    random = np.random.default_rng(2)
    counts = Counter()
    rounds = 4000
    for _ in range(rounds):
        reservoir = Reservoir(capacity=6)
        for number, sample in enumerate(samples):
            reservoir.offer(sample, random.random())
            if number == 10:
                reservoir.shrink(random.random())
                reservoir.shrink(random.random())
        counts.update(sample.stream_id for sample in reservoir.members)
    expected = rounds * 4 / 20
    assert sum((counts[s.stream_id] - expected) ** 2 / expected for s in samples) < 50


def test_a_domain_that_is_gone_stays_in_its_reservoir(plain_sample):
    limits = ReplayLimits(window_count=4, reservoir_count=3, holdout_percent=0)
    samples = [plain_sample(i, domain="a" if i < 10 else "b") for i in range(30)]
    replay = filled(limits, samples)
    assert {sample.domain for sample in replay.window.members} == {"b"}
    assert {domain: len(each.members) for domain, each in replay.reservoirs.items()} == {
        "a": 3,
        "b": 3,
    }


def held_out_samples(plain_sample, numbers, domain):
    samples = (plain_sample(i, domain=domain) for i in numbers)
    return [sample for sample in samples if is_held_out(sample.request_id, 50)]


def test_a_domain_that_is_gone_stays_held_out(plain_sample):
    limits = ReplayLimits(holdout_count=8, holdout_percent=50)
    samples = held_out_samples(plain_sample, range(100), "a")
    samples += held_out_samples(plain_sample, range(100, 200), "b")
    kept = filled(limits, samples).holdout.members
    # The newest of each.
    first = [each for each in samples if each.domain == "a"]
    assert [each for each in kept if each.domain == "a"] == first[-4:]
    assert [each for each in kept if each.domain == "b"] == samples[-4:]


def test_the_holdout_keeps_within_its_bytes_and_never_less_than_one(plain_sample):
    samples = held_out_samples(plain_sample, range(40), "a")
    size = samples[0].size_bytes
    limits = ReplayLimits(holdout_bytes=3 * size, holdout_percent=50)
    found = filled(limits, samples).holdout
    assert (list(found.members), found.size_bytes) == (samples[-3:], 3 * size)
    limits = ReplayLimits(holdout_bytes=1, holdout_percent=50)
    assert list(filled(limits, samples).holdout.members) == samples[-1:]


def test_domains_beyond_the_limit_share_a_reservoir(plain_sample):
    limits = ReplayLimits(domain_count=3, holdout_percent=0)
    replay = filled(limits, [plain_sample(i, domain=f"domain-{i}") for i in range(50)])
    assert set(replay.reservoirs) == {"domain-0", "domain-1", "domain-2", ""}


def test_reservoirs_stay_within_their_bytes(plain_sample):
    size = plain_sample(0).size_bytes
    limits = ReplayLimits(reservoir_bytes=10 * size, holdout_percent=0)
    samples = [plain_sample(i, domain=f"{i % 2}") for i in range(100)]
    replay = filled(limits, samples)
    sizes = [len(each.members) for each in replay.reservoirs.values()]
    assert sizes == [5, 5]


def test_half_of_the_recent_draws_fall_on_the_newest_eighth(plain_sample):
    replay = filled(ReplayLimits(holdout_percent=0), [plain_sample(i) for i in range(400)])
    uniforms = (np.arange(1000) + 0.5) / 1000
    drawn = replay.batch([BatchDraw(0.9, 0.0, uniform) for uniform in uniforms])
    newest = sum(int(sample.stream_id.split("-")[0]) >= 350 for sample in drawn)
    assert newest == pytest.approx(500, abs=5)


def test_a_quarter_of_a_batch_comes_from_all_domains_alike(plain_sample):
    limits = ReplayLimits(window_count=10, holdout_percent=0)
    samples = [plain_sample(i, domain="rare" if i < 5 else "common") for i in range(200)]
    replay = filled(limits, samples)
    draws = np.random.default_rng(0).random((4000, 3))
    drawn = Counter(s.domain for s in replay.batch([BatchDraw(*draw) for draw in draws]))
    assert drawn["rare"] / 4000 == pytest.approx(0.125, abs=0.02)


def test_nothing_to_draw_from_gives_no_batch(plain_sample):
    limits = ReplayLimits(holdout_percent=50)
    held_out = [s for s in map(plain_sample, range(20)) if is_held_out(s.request_id, 50)]
    replay = filled(limits, held_out)
    assert replay.batch([BatchDraw(0.1, 0.1, 0.1)]) == []
    assert len(replay.holdout.members) == len(held_out)


@pytest.mark.parametrize("percent", [0, 5, 50])
def test_the_holdout_has_its_percentage_of_requests(percent):
    held_out = sum(is_held_out(f"request-{i}", percent) for i in range(20_000))
    assert held_out / 20_000 == pytest.approx(percent / 100, abs=0.01)


def test_a_higher_percentage_only_adds_to_the_holdout():
    for i in range(1000):
        assert is_held_out(f"r{i}", 20) or not is_held_out(f"r{i}", 5)


@settings(deadline=None, max_examples=60)
@given(
    domains=st.lists(st.sampled_from("abcdef"), min_size=1, max_size=80),
    outputs=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
def test_limits_hold_and_the_holdout_is_never_drawn(plain_sample, domains, outputs, seed):
    limits = ReplayLimits(
        window_count=20,
        window_bytes=15_000,
        reservoir_count=6,
        reservoir_bytes=20_000,
        domain_count=3,
        holdout_count=5,
        holdout_percent=25,
    )
    samples = [
        plain_sample(i, domain=domain, outputs=1 + i * outputs % 17)
        for i, domain in enumerate(domains)
    ]
    replay = filled(limits, samples, seed=seed)
    assert len(replay.window.members) <= 20
    assert replay.window.size_bytes == sum(s.size_bytes for s in replay.window.members)
    assert replay.window.size_bytes <= 15_000
    assert len(replay.holdout.members) <= 5
    for reservoir in replay.reservoirs.values():
        assert reservoir.size_bytes == sum(s.size_bytes for s in reservoir.members)
        assert len(reservoir.members) <= 6
    draws = np.random.default_rng(seed).random((50, 3))
    for sample in replay.batch([BatchDraw(*draw) for draw in draws]):
        assert not is_held_out(sample.request_id, 25)
