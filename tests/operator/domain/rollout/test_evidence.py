"""The e-process keeps its promise: under "no better", 1/α is ever reached with probability ≤ α.

The simulations run vectorised over many rollouts at once; `test_vectorised_is_the_same` holds the
vectorised arithmetic to `observe` itself.
"""

import json
import math
import random
import statistics
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_common.codec import codec
from aurora_operator.domain.rollout.betting import STAKE_FRACTIONS
from aurora_operator.domain.rollout.evidence import ArmMean, Evidence, effect_interval, observe
from aurora_operator.domain.rollout.outcome import Ending, Outcome

EVIDENCE = codec(Evidence)

ALPHA = 0.05


class ManyRollouts:
    """`observe` over an array of rollouts: wealth [runs, 8], everything else [runs]."""

    def __init__(self, runs, *, min_effect=0.0):
        self.min_effect = min_effect
        self.log_wealth = np.zeros((runs, len(STAKE_FRACTIONS)))
        self.log_harm_wealth = np.zeros((runs, len(STAKE_FRACTIONS)))
        self.total, self.requests = np.zeros(runs), np.zeros(runs)

    def observe(self, chosen, probability, score, failed):
        score = np.where(failed, 0.0, score)
        baseline = np.clip((0.5 + self.total) / (1 + self.requests), 0, 1)
        effect = (chosen - probability) / (probability * (1 - probability)) * (score - baseline)
        loss = np.maximum(baseline / probability, (1 - baseline) / (1 - probability))
        gain = np.maximum((1 - baseline) / probability, baseline / (1 - probability))
        failed_stable = failed & ~chosen
        fractions = np.array(STAKE_FRACTIONS)
        # A failed stable request counts as a perfect one for "better", as none for "worse".
        best = -(1 - baseline) / (1 - probability)
        payoff = np.where(failed_stable, best, effect) - self.min_effect
        self.log_wealth += np.log1p(np.outer(payoff / (loss + self.min_effect), fractions))
        self.log_harm_wealth += np.log1p(np.outer(-effect / gain, fractions))
        self.total += np.where(failed_stable, 0.0, score)
        self.requests += ~failed_stable

    @staticmethod
    def _log_mean_exp(logs):
        return np.logaddexp.reduce(logs, axis=1) - math.log(logs.shape[1])

    def log_e(self):
        return self._log_mean_exp(self.log_wealth)

    def log_harm(self):
        return self._log_mean_exp(self.log_harm_wealth)


def test_vectorised_is_the_same():
    rng = np.random.default_rng(5)
    many, evidences = ManyRollouts(4, min_effect=0.01), [Evidence()] * 4
    for _ in range(200):
        bps = rng.integers(1, 10_000, 4)
        chosen, failed = rng.random(4) < bps / 10_000, rng.random(4) < 0.1
        accepted = rng.integers(0, 41, 4)
        many.observe(chosen, bps / 10_000, accepted / 40, failed)
        for run in range(4):
            outcome = Outcome(
                "candidate" if chosen[run] else "stable",
                int(bps[run]),
                40,
                int(accepted[run]),
                "failed" if failed[run] else "completed",
            )
            evidences[run] = observe(evidences[run], outcome, min_effect=0.01)
    np.testing.assert_allclose(many.log_e(), [e.log_e for e in evidences], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(many.log_harm(), [e.log_harm for e in evidences], rtol=1e-9)


def constant(_step, _many):
    return 0.2


def growing(step, _many):
    return (0.05, 0.2, 0.5)[min(step // 100, 2)]


def adversarial(_step, many):
    """Raises the stakes while behind, as someone would who wants a promotion."""
    return np.where(many.log_e() < 0, 0.9, 0.1)


def steady(rng, _step, size):
    return rng.beta(6, 4, size)


def coin(rng, _step, size):
    return (rng.random(size) < 0.3).astype(float)


def drifting(rng, step, size):
    mean = 0.5 + 0.4 * math.sin(step / 150)
    return rng.beta(8 * mean, 8 * (1 - mean), size)


@pytest.mark.parametrize("score", [steady, coin, drifting])
@pytest.mark.parametrize("weight", [constant, growing, adversarial])
def test_equal_arms_are_rarely_told_apart(weight, score):
    """Optional stopping at its worst: a run counts where it was above 1/α at any time at all."""
    runs, requests = 2000, 500
    rng = np.random.default_rng(17)
    many = ManyRollouts(runs)
    promoted, harmed = np.zeros(runs, bool), np.zeros(runs, bool)
    for step in range(requests):
        probability = np.broadcast_to(weight(step, many), (runs,))
        chosen = rng.random(runs) < probability
        many.observe(chosen, probability, score(rng, step, runs), np.zeros(runs, bool))
        promoted |= many.log_e() >= math.log(1 / ALPHA)
        harmed |= many.log_harm() >= math.log(1 / ALPHA)
    allowed = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    assert promoted.mean() <= allowed
    assert harmed.mean() <= allowed


@pytest.mark.parametrize(("candidate_fails", "stable_fails"), [(0.0, 0.3), (0.3, 0.3), (0.3, 0.0)])
def test_failures_never_favour_the_candidate(candidate_fails, stable_fails):
    runs, requests = 2000, 1000
    rng = np.random.default_rng(23)
    many = ManyRollouts(runs)
    promoted, harmed = np.zeros(runs, bool), np.zeros(runs, bool)
    for _ in range(requests):
        chosen = rng.random(runs) < 0.3
        failed = rng.random(runs) < np.where(chosen, candidate_fails, stable_fails)
        many.observe(chosen, np.full(runs, 0.3), rng.beta(6, 4, runs), failed)
        promoted |= many.log_e() >= math.log(1 / ALPHA)
        harmed |= many.log_harm() >= math.log(1 / ALPHA)
    allowed = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)
    assert promoted.mean() <= allowed
    if candidate_fails > stable_fails:
        assert harmed.mean() > 0.99
    else:
        assert harmed.mean() <= allowed


def test_an_effect_of_just_the_least_is_no_promotion():
    runs = 2000
    rng = np.random.default_rng(29)
    many = ManyRollouts(runs, min_effect=0.05)
    promoted = np.zeros(runs, bool)
    for _ in range(2000):
        chosen = rng.random(runs) < 0.5
        score = np.clip(rng.normal(0.5, 0.1, runs) + 0.05 * chosen, 0, 1)
        many.observe(chosen, np.full(runs, 0.5), score, np.zeros(runs, bool))
        promoted |= many.log_e() >= math.log(1 / ALPHA)
    assert promoted.mean() <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / runs)


def requests_until(threshold, *, weight_bps, stable, candidate, seed, log_e):
    """Requests until `log_e(evidence)` reaches `threshold`, at 30 drafted tokens a request."""
    draw = random.Random(seed)
    evidence, requests = Evidence(), 0
    while log_e(evidence) < threshold and requests < 2000:
        arm = "candidate" if draw.random() < weight_bps / 10_000 else "stable"
        rate = candidate if arm == "candidate" else stable
        accepted = sum(draw.random() < rate for _ in range(30))
        evidence = observe(evidence, Outcome(arm, weight_bps, 30, accepted))
        requests += 1
    return requests


@pytest.mark.parametrize(("weight_bps", "at_most"), [(2000, 60), (5000, 40)])
def test_a_much_better_candidate_is_soon_found(weight_bps, at_most):
    requests = [
        requests_until(
            math.log(100),
            weight_bps=weight_bps,
            stable=0.2,
            candidate=0.6,
            seed=seed,
            log_e=lambda evidence: evidence.log_e,
        )
        for seed in range(40)
    ]
    assert statistics.median(requests) <= at_most


@pytest.mark.parametrize("weight_bps", [500, 2000, 5000])
def test_a_much_worse_candidate_is_soon_found(weight_bps):
    requests = [
        requests_until(
            math.log(100),
            weight_bps=weight_bps,
            stable=0.6,
            candidate=0.2,
            seed=seed,
            log_e=lambda evidence: evidence.log_harm,
        )
        for seed in range(20)
    ]
    assert statistics.median(requests) <= 300


outcomes = st.builds(
    Outcome,
    arm=st.sampled_from(["stable", "candidate"]),
    candidate_bps=st.integers(0, 10_000),
    drafted_tokens=st.integers(0, 1 << 40),
    accepted_tokens=st.integers(0, 1 << 40),
    ending=st.sampled_from(get_args(Ending)),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(outcomes, max_size=60), st.floats(0, 0.9999), st.booleans())
def test_always_finite_and_bounded(sequence, min_effect, without_stable):
    evidence = Evidence()
    for outcome in sequence:
        evidence = observe(evidence, outcome, min_effect=min_effect, without_stable=without_stable)
    assert math.isfinite(evidence.log_e)
    assert math.isfinite(evidence.log_harm)
    assert 0 <= evidence.baseline <= 1
    interval = effect_interval(evidence)
    if interval is not None:
        assert -1 <= interval[0] <= interval[1] <= 1


def test_a_long_run_of_losses_stays_finite():
    evidence = Evidence()
    for _ in range(20_000):
        evidence = observe(evidence, Outcome("candidate", 1, 10, 0))
    assert math.isfinite(evidence.log_e)
    assert evidence.log_e < -10


@settings(max_examples=50, deadline=None)
@given(st.lists(outcomes, max_size=40), st.integers(0, 40))
def test_a_restart_changes_nothing(sequence, stop):
    unbroken = Evidence()
    for outcome in sequence:
        unbroken = observe(unbroken, outcome)
    broken = Evidence()
    for outcome in sequence[:stop]:
        broken = observe(broken, outcome)
    kept = json.dumps(EVIDENCE.write(broken))
    broken = EVIDENCE.read(json.loads(kept), "evidence")
    for outcome in sequence[stop:]:
        broken = observe(broken, outcome)
    assert broken == unbroken


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome("candidate", 5000, 0, 0),
        Outcome("stable", 5000, 0, 0),
        Outcome("stable", 0, 10, 5),
        Outcome("candidate", 10_000, 10, 5),
        Outcome("candidate", 5000, 0, 0, "cancelled"),
        Outcome("stable", 5000, 0, 0, "cancelled"),
    ],
)
def test_what_carries_no_information_changes_nothing(outcome):
    evidence = observe(Evidence(), Outcome("candidate", 5000, 10, 9))
    assert observe(evidence, outcome) == evidence


UNFINISHED = ("failed", "draft_failed", "timed_out", "lost")
# What an outcome scores for "better", for "worse", and whether it is in the means shown.
ROWS = [
    *[(arm, "completed", 10, 0.7, 0.7, True) for arm in ("stable", "candidate")],
    *[("candidate", ending, 10, 0.0, 0.0, True) for ending in UNFINISHED],
    *[("candidate", ending, 0, 0.0, 0.0, True) for ending in UNFINISHED],
    *[("stable", ending, 10, 1.0, 0.0, False) for ending in UNFINISHED],
    *[("stable", ending, 0, 1.0, 0.0, False) for ending in UNFINISHED],
    ("candidate", "cancelled", 10, 0.0, 0.0, False),
    ("stable", "cancelled", 10, 1.0, 0.0, False),
]


@pytest.mark.parametrize(("arm", "ending", "drafted", "better", "worse", "in_means"), ROWS)
def test_what_became_of_a_request_counts(arm, ending, drafted, better, worse, in_means):
    before = observe(Evidence(), Outcome("candidate", 2000, 10, 9))

    def completed(score):
        return observe(before, Outcome(arm, 2000, 10, round(10 * score)), min_effect=0.1)

    found = observe(before, Outcome(arm, 2000, drafted, 7, ending), min_effect=0.1)
    assert found.log_wealth == completed(better).log_wealth
    assert found.log_harm_wealth == completed(worse).log_harm_wealth
    assert found.requests - before.requests == in_means


@pytest.mark.parametrize("ending", ["cancelled", *UNFINISHED])
def test_not_completing_never_speaks_for_the_candidate(ending):
    before = observe(Evidence(), Outcome("candidate", 5000, 10, 9))
    for arm in ("stable", "candidate"):
        assert observe(before, Outcome(arm, 5000, 10, 10, ending)).log_e < before.log_e


def test_without_a_stable_draft_its_arm_scores_nothing_whatever_became_of_it():
    before = observe(Evidence(), Outcome("candidate", 5000, 10, 9), without_stable=True)
    found = [
        observe(before, Outcome("stable", 5000, 0, 0, ending), without_stable=True)
        for ending in get_args(Ending)
    ]
    assert found == [found[0]] * len(found)
    assert found[0].stable == ArmMean(1, 0.0)


def test_without_a_stable_draft_any_acceptance_is_better():
    draw, evidence = random.Random(3), Evidence()
    for _ in range(300):
        candidate = draw.random() < 0.2
        outcome = Outcome("candidate" if candidate else "stable", 2000, 30 * candidate, 9)
        evidence = observe(evidence, outcome, without_stable=True)
    assert evidence.log_e > math.log(100)
    assert evidence.stable.acceptance == 0


def test_the_interval_holds_the_effect():
    draw = random.Random(11)
    evidence = Evidence()
    for _ in range(1000):
        candidate = draw.random() < 0.5
        accepted = sum(draw.random() < (0.5 if candidate else 0.4) for _ in range(30))
        arm = "candidate" if candidate else "stable"
        evidence = observe(evidence, Outcome(arm, 5000, 30, accepted))
    low, high = effect_interval(evidence)
    assert 0 < low < 0.1 < high < 0.2
    assert effect_interval(Evidence()) is None
