"""A candidate against a stable arm that a portfolio serves: the same evidence, and as sound.

The arm is drawn before the draft is chosen, and the choice rests on earlier requests alone. So at
each request the two arms differ by what serves them, and by nothing else.
"""

import random
from functools import cache

import pytest

from aurora_inference.native.portfolio import Portfolio
from aurora_operator.domain.rollout.betting import log_threshold
from aurora_operator.domain.rollout.evidence import Evidence, observe
from aurora_operator.domain.rollout.outcome import Outcome

RATES = {"a": {"stable": 0.2, "initial": 0.6}, "b": {"stable": 0.7, "initial": 0.3}}
ALPHA = "0.05"
ROLLOUTS, REQUESTS, DRAFTED = 60, 120, 20
CANDIDATE_BPS = 3000


def rollout(seed, candidate_rate):
    """Whether a candidate is ever promoted, or found harmful, over domains that come and go.

    `candidate_rate`: (domain, rate of the portfolio's choice) -> its acceptance.
    """
    draws, portfolio = random.Random(seed), Portfolio(seed)
    evidence, promoted, harmful = Evidence(), False, False
    # What was served before the rollout.
    for domain, drafts in RATES.items():
        for digest, rate in drafts.items():
            before = portfolio.begin(domain, [digest], max_tokens=64, explore=False, bounded=True)
            for _ in range(40):
                accepted = next((n for n in range(4) if draws.random() >= rate), 4)
                portfolio.observe(before, 4, accepted, accepted + 1)
    for number in range(REQUESTS):
        domain = "ab"[number // 25 % 2 if draws.random() < 0.8 else draws.randrange(2)]
        is_candidate = draws.random() < CANDIDATE_BPS / 10_000
        trial = portfolio.begin(
            domain, ["stable", "initial"], max_tokens=64, explore=False, bounded=True
        )
        rate = RATES[domain][trial.digest]
        if is_candidate:
            rate = candidate_rate(domain, rate)
        accepted = sum(draws.random() < rate for _ in range(DRAFTED))
        if not is_candidate:
            for _ in range(5):
                kept = next((n for n in range(4) if draws.random() >= rate), 4)
                portfolio.observe(trial, 4, kept, kept + 1)
        arm = "candidate" if is_candidate else "stable"
        outcome = Outcome(arm, CANDIDATE_BPS, DRAFTED, accepted)
        evidence = observe(evidence, outcome, min_effect=0.0)
        promoted = promoted or evidence.log_e >= log_threshold(ALPHA)
        harmful = harmful or evidence.log_harm >= log_threshold(ALPHA)
    return promoted, harmful


@cache
def shares(name):
    """Of many rollouts of a candidate, the shares that are ever promoted, and found harmful."""
    candidates = {
        "as good as what serves": lambda domain, rate: rate,
        "a copy of the stable draft": lambda domain, rate: RATES[domain]["stable"],
        "better than what serves": lambda domain, rate: rate + 0.25,
    }
    found = [rollout(seed, candidates[name]) for seed in range(ROLLOUTS)]
    return tuple(sum(each) / ROLLOUTS for each in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["as good as what serves", "a copy of the stable draft"])
def test_what_is_no_better_than_what_serves_is_promoted_with_chance_alpha_at_most(name):
    # Binomial: with chance 0.05 each, more than 6 of 60 come up once in 30 times.
    assert shares(name)[0] <= 0.1


def test_what_is_as_good_is_found_harmful_with_chance_alpha_at_most():
    assert shares("as good as what serves")[1] <= 0.1


def test_what_is_better_than_what_serves_is_promoted():
    assert shares("better than what serves")[0] > 0.9


def test_a_copy_of_the_stable_draft_is_worse_than_what_serves():
    assert shares("a copy of the stable draft")[1] > 0.5
