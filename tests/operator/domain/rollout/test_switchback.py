"""Pairs of time blocks: seldom a false verdict whatever the traffic does, and soon a true one."""

import json
import math
import random
import statistics
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_operator.domain.rollout.evidence import Evidence, observe_pair
from aurora_operator.domain.rollout.guardrail import guardrail_state
from aurora_operator.domain.rollout.outcome import Block, Pair
from aurora_operator.domain.rollout.switchback import CLIP

THRESHOLD = math.log(100)
blocks = st.builds(
    Block,
    requests=st.integers(0, 100),
    failed_requests=st.integers(0, 100),
    drafted_tokens=st.integers(0, 10_000),
    accepted_tokens=st.integers(0, 12_000),
    time_per_output_token_us=st.integers(0, 10**9),
)


def pair(stable, candidate, *, requests=30, failed=(0, 0), times=(0, 0)):
    """Blocks of 1,000 drafted tokens, by their accepted ones."""
    return Pair(
        Block(requests, failed[0], 1000, stable, times[0]),
        Block(requests, failed[1], 1000, candidate, times[1]),
    )


def calm(_draw, _when):
    return 0.6


def trend(_draw, when):
    """Half of all acceptance is gained in 400 pairs."""
    return 0.4 + 0.4 * when / 400


def waves(_draw, when):
    return 0.6 + 0.3 * math.sin(when)


def shifts(draw, when):
    return 0.3 + 0.5 * (random.Random(int(when / 7.3)).random() > 0.5)


def pairs(draw, *, gain=0.0, world=calm, share=0.2, requests=75):
    """Of one inference for ever: of each pair, the arms' order is a coin's."""
    number = 0
    while True:
        arms = ["stable", "candidate"]
        draw.shuffle(arms)
        shares = {"stable": 1 - share, "candidate": share}
        found, begin = {}, 0.0
        for arm in arms:
            count = max(1, round(requests * shares[arm]))
            accepted = drafted = 0
            for each in range(count):
                when = number + begin + shares[arm] * each / count
                rate = world(draw, when) + (gain if arm == "candidate" else 0.0)
                tokens = draw.randint(20, 60)
                drafted += tokens
                chance = min(max(draw.gauss(rate, 0.1), 0.0), 1.0)
                accepted += sum(draw.random() < chance for _ in range(tokens))
            found[arm] = Block(count, 0, drafted, accepted)
            begin += shares[arm]
        yield Pair(found["stable"], found["candidate"])
        number += 1


def verdict(stream, *, at_most):
    """Better or worse and after how many pairs; None and all of them if neither."""
    evidence = Evidence()
    for count in range(1, at_most + 1):
        evidence = observe_pair(evidence, next(stream))
        if evidence.log_e >= THRESHOLD:
            return "better", count
        if evidence.log_harm >= THRESHOLD:
            return "worse", count
    return None, at_most


@pytest.mark.parametrize("world", [calm, trend, waves, shifts])
def test_equal_drafts_are_rarely_told_apart(world):
    draw = random.Random(1)
    found = [verdict(pairs(draw, world=world), at_most=60)[0] for _ in range(50)]

    # At α = 0.01 two of 50 are already less likely than 1 in 10, three than 1 in 70.
    assert found.count("better") <= 2
    assert found.count("worse") <= 2


def test_three_points_are_found_within_40_pairs():
    draw = random.Random(2)
    found = [verdict(pairs(draw, gain=0.03, share=0.5), at_most=200) for _ in range(30)]

    assert {name for name, _ in found} == {"better"}
    assert statistics.median(count for _, count in found) <= 40


def test_a_loss_is_found():
    draw = random.Random(3)
    found = [verdict(pairs(draw, gain=-0.05, share=0.2), at_most=200) for _ in range(20)]

    assert {name for name, _ in found} == {"worse"}


def test_an_effect_of_just_the_least_is_no_promotion():
    evidence = Evidence()
    for _ in range(1000):
        evidence = observe_pair(evidence, pair(600, 620), min_effect=0.02)

    assert evidence.log_e <= 1e-9
    assert evidence.effect == pytest.approx(0.02)


@given(st.lists(st.builds(Pair, blocks, blocks), max_size=50))
def test_always_finite_and_bounded(sequence):
    evidence = Evidence(guardrails=(guardrail_state("tpot", None),))
    for each in sequence:
        evidence = observe_pair(evidence, each)

    assert all(math.isfinite(wealth) for wealth in evidence.log_wealth + evidence.log_harm_wealth)
    assert abs(evidence.effect) <= 1
    assert all(0 <= arm.acceptance <= 1 for arm in (evidence.stable, evidence.candidate))
    assert (evidence.pairs or 0) <= len(sequence)
    json.dumps(asdict(evidence), allow_nan=False)


def test_the_mirrored_process_sees_the_mirrored_pair():
    one = observe_pair(Evidence(), pair(600, 630))
    other = observe_pair(Evidence(), pair(630, 600))

    assert one.log_wealth == other.log_harm_wealth
    assert one.log_harm_wealth == other.log_wealth


def test_one_odd_pair_counts_for_no_more_than_the_clip():
    odd = observe_pair(Evidence(), pair(0, 1000))

    assert odd.log_wealth == observe_pair(Evidence(), pair(0, round(1000 * CLIP))).log_wealth
    assert odd.effect == 1


@pytest.mark.parametrize("empty", ["stable", "candidate"])
def test_a_block_that_drafted_nothing_says_nothing(empty):
    nothing = {empty: Block(30, 0, 0, 0)}
    found = {"stable": Block(30, 0, 1000, 500), "candidate": Block(30, 0, 1000, 900), **nothing}

    assert observe_pair(Evidence(), Pair(**found)) == Evidence()


def test_failures_never_favour_the_candidate():
    without = observe_pair(Evidence(), pair(600, 630))
    for failed in ((0, 5), (5, 0), (5, 5)):
        evidence = observe_pair(Evidence(), pair(600, 630, failed=failed))
        assert evidence.log_e < without.log_e


def test_what_fails_both_alike_is_not_the_candidates_harm():
    evidence = Evidence()
    for _ in range(500):
        evidence = observe_pair(evidence, pair(600, 600, failed=(10, 10)))

    assert evidence.log_harm <= 0


def test_a_candidate_under_which_all_fails_is_harm():
    evidence = Evidence()
    for _ in range(20):
        broken = Pair(Block(30, 0, 1000, 600), Block(30, 30, 0, 0))
        evidence = observe_pair(evidence, broken)

    assert evidence.log_harm >= THRESHOLD
    assert evidence.candidate.acceptance == 0


def test_requests_and_pairs_are_counted():
    evidence = observe_pair(observe_pair(Evidence(), pair(600, 620)), pair(640, 640, requests=10))

    assert (evidence.requests, evidence.pairs) == (80, 2)
    assert evidence.stable.acceptance == pytest.approx((0.6 * 30 + 0.64 * 10) / 40)
    assert evidence.effect == pytest.approx(0.01)
    assert evidence.ci_bps is not None


def guarded(times, count):
    """The tpot guardrail after pairs of such times."""
    evidence = Evidence(guardrails=(guardrail_state("tpot", None),))
    for _ in range(count):
        evidence = observe_pair(evidence, pair(600, 600, times=times))
    return evidence.guardrails[0]


def test_a_slower_candidate_is_harm():
    assert guarded((20_000, 30_000), 40).log_harm >= THRESHOLD
    assert guarded((20_000, 30_000), 40).holds_back
    assert guarded((20_000, 21_000), 400).log_harm < 0
    assert not guarded((20_000, 21_000), 400).holds_back


def test_without_times_a_guardrail_neither_holds_back_nor_rolls_back():
    found = guarded((0, 0), 40)

    assert (found.requests, found.holds_back, found.log_harm) == (0, False, 0.0)
