"""What replaying recorded requests shows: both tests, the classes, and what is counted once."""

import math
import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_operator.domain.rollout.replay import (
    CLIP,
    Replay,
    Score,
    read,
    replayed,
    replayed_harm,
)
from aurora_operator.domain.rollout.time_saved import is_faster, is_futile

SURE = math.log(100)


def score(number, saved=0.0, *, stable=20.0, tokens=50, domain=""):
    """A request of which the candidate saves such a share of the time."""
    return Score(f"{number}-0", domain, tokens, stable, stable * (1 - saved))


def after(scores, replay=None, **terms):
    replay = Replay() if replay is None else replay
    for each in scores:
        replay = replayed(replay, each, **terms)
    return replay


def noisy(seed, gain, count, **kind):
    draw = random.Random(seed)
    return [score(number, draw.gauss(gain, 0.06), **kind) for number in range(1, count + 1)]


def test_a_faster_candidate_is_found_and_a_slower_one_too():
    faster, slower = after(noisy(1, 0.04, 300)), after(noisy(1, -0.04, 300))
    assert is_faster(faster, threshold=SURE)
    assert not is_futile(faster)
    assert slower.log_harm > SURE
    assert replayed_harm(slower, threshold=SURE) == "all requests"
    assert replayed_harm(faster, threshold=SURE) is None
    assert not is_faster(slower, threshold=SURE)
    assert is_futile(slower)
    assert faster.saved_bps == pytest.approx(400, abs=100)
    low, high = faster.ci_bps
    assert low < faster.saved_bps < high


def test_two_equal_drafts_show_nothing():
    same = after([score(number) for number in range(1, 1000)])
    assert same.log_e == same.log_harm == 0
    assert not is_faster(same, threshold=SURE)
    assert not is_futile(same)


def test_many_short_wins_do_not_outweigh_what_long_answers_lose():
    """15% of the requests have 85% of the tokens, and the candidate is slower on those."""
    draw = random.Random(3)
    scores = [
        score(number, draw.gauss(-0.03, 0.01), stable=400.0, tokens=900)
        if draw.random() < 0.15
        else score(number, draw.gauss(0.1, 0.01), stable=10.0)
        for number in range(1, 400)
    ]
    found = after(scores)
    assert found.log_e > SURE
    assert not is_faster(found, threshold=SURE)


def test_a_collapse_on_few_requests_is_no_gain():
    """It saves 2% of most requests and takes 2.5 times as long on 1.5%: slower, all in all."""
    promoted = 0
    for seed in range(40):
        draw, found = random.Random(seed), Replay()
        for number in range(1, 500):
            saved = -1.5 if draw.random() < 0.015 else draw.gauss(0.02, 0.05)
            found = replayed(found, score(number, saved))
            if is_faster(found, threshold=SURE):
                promoted += 1
                break
    assert promoted <= 1


def test_a_gain_that_is_large_shows_at_once():
    found = after([score(number, 0.5) for number in range(1, 20)])
    assert is_faster(found, threshold=SURE)


def test_a_gain_must_exceed_what_pays():
    found = after(noisy(5, 0.03, 800), min_effect=0.05)
    assert not is_faster(found, threshold=SURE, min_effect=0.05)
    assert is_futile(found, min_effect=0.05)
    assert not is_futile(found, min_effect=0.01)


def test_harm_in_one_class_among_gains_in_others():
    draw = random.Random(6)
    scores = [
        score(number, draw.gauss(-0.08, 0.05), domain="law")
        if number % 5 == 0
        else score(number, draw.gauss(0.05, 0.05), domain="code", tokens=5000)
        for number in range(1, 500)
    ]
    found = after(scores)
    assert found.log_e > SURE
    assert found.log_harm < SURE
    assert replayed_harm(found, threshold=SURE) in ("domain law", "answers of up to 64 tokens")


def test_classes_are_bounded_whatever_clients_call_their_domains():
    found = after([score(number, domain=f"d{number}") for number in range(1, 200)])
    names = [each.name for each in found.classes]
    assert len(names) <= 20
    assert "other domains" in names
    assert sum(each.requests for each in found.classes) == 2 * 199


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (64, "answers of up to 64 tokens"),
        (65, "answers of up to 512 tokens"),
        (513, "answers of over 512 tokens"),
    ],
)
def test_length_classes(tokens, name):
    assert name in {each.name for each in after([score(1, tokens=tokens)]).classes}


def test_a_request_counts_once_and_in_order():
    scores = noisy(7, 0.02, 50)
    once = read(Replay(begin="0-5"), scores, through="50-0")
    assert (once.requests, once.begin) == (50, "0-5")
    assert read(once, scores, through="50-0") == once
    assert read(once, (), through="49-7") == once
    ahead = read(once, (), through="60-0")
    assert ahead == replace(once, after="60-0")
    assert read(ahead, [score(55)], through="60-0") == ahead


def test_requests_that_were_judged_at_one_position_all_count():
    scores = [replace(each, id="9-0") for each in noisy(7, 0.02, 3)]
    found = read(Replay("8-0"), [*scores, score(10)], through="10-0")
    assert found == after([*scores, score(10)], Replay("8-0"))
    assert found.requests == 4
    assert read(found, scores, through="9-0") == found


@given(st.lists(st.integers(0, 100), max_size=6), st.integers(0, 3))
def test_whatever_the_pages_the_evidence_is_the_same_to_the_last_bit(cuts, repeats):
    scores = noisy(8, 0.02, 100)
    whole = after(scores)
    paged = Replay()
    for start, end in pairwise(sorted([0, *cuts, 100])):
        # A page may be asked for again after a restart.
        for _ in range(repeats + 1):
            paged = read(paged, scores[start:end], through=f"{end}-0" if end else "")
    assert paged == whole


@given(st.lists(st.floats(-5, 1), max_size=60))
def test_one_request_never_decides(saved):
    """Whatever a request scores, no gambler is ruined by it, nor made rich."""
    before = Replay()
    for number, each in enumerate(saved, start=1):
        found = replayed(before, score(number, each))
        for old, new in zip(before.log_wealth, found.log_wealth, strict=True):
            assert math.log(0.05) - 1e-9 <= new - old <= math.log(1.95) + 1e-9
        before = found


def test_no_gain_is_no_gain_on_average():
    """Of exchangeable drafts the mean of the clipped W is at most 0."""
    draw = random.Random(9)
    total = 0.0
    for _ in range(20_000):
        one, other = (10 * math.exp(draw.gauss(0, 0.2)) for _ in range(2))
        for stable, candidate in ((one, other), (other, one)):
            total += min(max(Score("1-0", "", 9, stable, candidate).saved, -CLIP), CLIP)
    assert total <= 0


def test_ever_promoted_without_a_gain_at_most_alpha():
    """200 null rollouts that are looked at after each request; expected at most 10 at 0.05."""
    level, promoted = -math.log(0.05), 0
    for seed in range(200):
        found = Replay()
        for each in noisy(seed, 0.0, 300):
            found = replayed(found, each)
            if is_faster(found, threshold=level):
                promoted += 1
                break
    assert promoted <= 10
