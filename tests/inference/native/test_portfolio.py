"""Which draft the records favour, when a request changes to another, and what is explored."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_inference.native.portfolio import EXPLORED_SHARE, MAX_DOMAINS, Portfolio, Trial

STABLE, INITIAL, FORMER = "sha256:stable", "sha256:initial", "sha256:former"
LENGTH = 4


class Traffic:
    """Requests of a world in which `rates[domain][draft]` is the acceptance of each token."""

    def __init__(self, rates: dict[str, dict[str, float]], *, seed: int = 0) -> None:
        self.rates = dict(rates)
        self.portfolio = Portfolio(seed)
        self.tokens = self.explored = 0
        self._draws = random.Random(seed)

    def step(self, trial: Trial, *, left: int = 100) -> int:
        rate = self.rates[trial.domain][trial.digest]
        accepted, drafted = 0, min(LENGTH, left - 1)
        while accepted < drafted and self._draws.random() < rate:
            accepted += 1
        self.tokens += accepted + 1
        self.explored += (accepted + 1) * trial.explores
        self.portfolio.observe(trial, drafted, accepted, accepted + 1)
        return accepted + 1

    def request(
        self, domain: str, drafts: list[str], *, tokens: int = 64, explore: bool = True
    ) -> tuple[str, int]:
        """The digest that a request began with, and its verify steps."""
        trial = self.portfolio.begin(
            domain, drafts, max_tokens=tokens, explore=explore, bounded=True
        )
        first, steps, left = trial.digest, 0, tokens
        while left > 0:
            left -= self.step(trial, left=left)
            steps += 1
            if (other := self.portfolio.following(trial, drafts)) is not None:
                self.portfolio.change(trial, other)
        self.portfolio.end(trial, draft_failed=False)
        return first, steps


RETURN = {
    "a": {STABLE: 0.2, INITIAL: 0.6},
    "b": {STABLE: 0.8, INITIAL: 0.3},
}


@pytest.fixture
def returning() -> Traffic:
    """The initial draft served domain a, then another was promoted and served domain b."""
    traffic = Traffic(RETURN)
    for _ in range(30):
        traffic.request("a", [INITIAL])
    for _ in range(60):
        traffic.request("b", [STABLE, INITIAL])
    return traffic


def test_without_a_record_the_stable_draft_serves():
    assert Portfolio(0).best("a", [STABLE, INITIAL]) == STABLE


def test_a_domain_that_returns_begins_with_the_draft_that_is_best_there(returning):
    for _ in range(5):
        assert returning.request("a", [STABLE, INITIAL], explore=False)[0] == INITIAL
    assert returning.request("b", [STABLE, INITIAL], explore=False)[0] == STABLE


def test_without_labels_a_request_changes_to_the_draft_that_is_better_for_it():
    traffic = Traffic({"": {STABLE: 0.6, INITIAL: 0.6}})
    for _ in range(20):
        traffic.request("", [INITIAL])
    for _ in range(5):
        traffic.request("", [STABLE])
    traffic.rates[""] = {STABLE: 0.05, INITIAL: 0.6}
    trial = Trial("", STABLE, may_change=True)
    for _ in range(10):
        traffic.step(trial)
    assert traffic.portfolio.following(trial, [STABLE, INITIAL]) == INITIAL


def test_a_text_that_is_hard_for_every_draft_ends_with_the_one_that_did_best(returning):
    returning.rates["a"] = {STABLE: 0.25, INITIAL: 0.02}
    trial = Trial("a", STABLE, may_change=True)
    served = []
    for _ in range(200):
        returning.step(trial)
        served.append(trial.digest)
        if (other := returning.portfolio.following(trial, [STABLE, INITIAL])) is not None:
            returning.portfolio.change(trial, other)
    assert INITIAL in served
    assert served[-1] == STABLE
    assert trial.changes <= 4


def test_what_may_not_change_never_does(returning):
    trial = Trial("a", STABLE)
    for _ in range(50):
        returning.step(trial)
    assert returning.portfolio.following(trial, [STABLE, INITIAL]) is None


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rates=st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.52, 0.9, 1.0]), min_size=6, max_size=6),
    tokens=st.sampled_from([1, 5, 64, 200]),
)
def test_at_no_time_more_than_two_percent_is_explored(seed, rates, tokens):
    drafts = [STABLE, INITIAL, FORMER]
    world = {"a": dict(zip(drafts, rates[:3], strict=True))}
    world["b"] = dict(zip(drafts, rates[3:], strict=True))
    traffic = Traffic(world, seed=seed)
    for number in range(150):
        traffic.request("ab"[number % 2], drafts, tokens=tokens)
        assert traffic.explored <= EXPLORED_SHARE * traffic.tokens


def test_exploration_finds_a_draft_that_became_better():
    """The stable one serves well, until the retained one would serve better."""
    traffic = Traffic({"a": {STABLE: 0.5, INITIAL: 0.3}})
    for _ in range(50):
        traffic.request("a", [STABLE, INITIAL])
    traffic.rates["a"] = {STABLE: 0.5, INITIAL: 0.8}
    for _ in range(400):
        first, _ = traffic.request("a", [STABLE, INITIAL])
    assert first == INITIAL
    assert traffic.explored > 0


@pytest.mark.parametrize("seed", range(5))
def test_it_takes_hardly_more_steps_than_the_best_single_draft(seed):
    """Over a shift and a return, in windows of 100 requests."""
    drafts = [STABLE, INITIAL]
    traffic = Traffic(RETURN, seed=seed)
    for _ in range(50):
        traffic.request("a", [INITIAL])
    for domain, best in (("b", STABLE), ("a", INITIAL), ("b", STABLE), ("a", INITIAL)):
        rate = RETURN[domain][best]
        expected = sum(rate**n for n in range(LENGTH + 1))
        steps = sum(traffic.request(domain, drafts)[1] for _ in range(100))
        assert steps < 1.05 * 100 * (64 / expected + 1)


def test_a_draft_that_fails_is_not_preferred(returning):
    trial = returning.portfolio.begin(
        "a", [STABLE, INITIAL], max_tokens=9, explore=False, bounded=True
    )
    assert trial.digest == INITIAL
    returning.portfolio.end(trial, draft_failed=True)
    assert returning.portfolio.rate("a", INITIAL) < 0.05


def test_released_drafts_and_old_domains_are_forgotten(returning):
    returning.portfolio.keep({STABLE})
    assert returning.portfolio.rate("a", INITIAL) == 0.5
    assert returning.portfolio.share(INITIAL) == 0
    for number in range(MAX_DOMAINS):
        returning.rates[str(number)] = {STABLE: 0.9}
        returning.request(str(number), [STABLE], tokens=2)
    assert returning.portfolio.rate("b", STABLE) == 0.5


def test_shares_are_of_the_tokens_that_each_draft_served_lately(returning):
    before = returning.portfolio.share(INITIAL)
    for _ in range(300):
        returning.request("b", [STABLE, INITIAL], explore=False)
    assert returning.portfolio.share(INITIAL) < before
    shares = [returning.portfolio.share(each) for each in (STABLE, INITIAL)]
    assert sum(shares) == pytest.approx(1.0)


def test_a_seed_decides_what_is_explored():
    firsts = []
    for _ in range(2):
        traffic = Traffic(RETURN, seed=3)
        firsts.append([traffic.request("a", [STABLE, INITIAL])[0] for _ in range(200)])
    assert firsts[0] == firsts[1]
