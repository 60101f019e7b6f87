"""Rollouts that recorded requests decide, and live ones guard."""

import json
import math
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.manifest import changed

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.observation import (
    InferenceView,
    Observation,
    OutcomeBatch,
    ReplayBatch,
)
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STABLE = Draft("stable", "sha256:a", "file:///a")
CANDIDATE = Draft("candidate", "sha256:b", "file:///b")


@pytest.fixture
def manifest():
    found = changed("spec.rollout.steps", [{"weightPercent": 50}])
    found["spec"]["rollout"] |= {"analysis": {"minRequests": 40}, "guardrails": []}
    return found


@pytest.fixture
def deployment(manifest):
    return parse_manifest(json.dumps(manifest), "test")


class Fleet:
    """One inference, with the outcomes and scores that a test adds."""

    def __init__(self, deployment, status=None):
        self.deployment = deployment
        self.draw = random.Random(1)
        self.outcomes = []
        self.scores = []
        self.refusal = ""
        waiting = Queue(1, Candidate(CANDIDATE, 1, "5-0"))
        self.status = replace(status or Status(), queue=waiting)
        self.view = InferenceView("pod", "1", STABLE)

    def offer(self, number):
        """Another candidate, of the same acceptance."""
        self.status = replace(self.status, queue=Queue(number, Candidate(CANDIDATE, number, "5-0")))
        self.view = InferenceView("pod", "1", STABLE)
        self.scores = []

    def reconcile(self, times=3):
        for _ in range(times):
            self.status = plan(self.deployment, self.status, self._seen(), NOW).status
            # As a restarted operator would read it.
            self.status = status_from_json(status_to_json(self.status))
            if self.status.live_rollout is not None:
                rollout_id = self.status.live_rollout.id
                self.view = InferenceView("pod", "1", STABLE, CANDIDATE, rollout_id, 5000)

    def serve(self, count, gain=0.0):
        for _ in range(count):
            arm = self.draw.choice(["stable", "candidate"])
            rate = 0.6 + (gain if arm == "candidate" else 0.0)
            accepted = sum(self.draw.random() < rate for _ in range(40))
            number = len(self.outcomes) + 1
            outcome = Outcome(
                arm, 5000, 40, accepted, stable_digest="sha256:a", candidate_digest="sha256:b"
            )
            self.outcomes.append((number, outcome))

    def record(self, count, saved):
        for _ in range(count):
            number = 6 + len(self.scores)
            steps = 20 * (1 - saved + self.draw.gauss(0, 0.04))
            self.scores.append(Score(f"{number}-0", "", 50, 20.0, steps))

    def _seen(self):
        rollout_id = self.status.rollout.id if self.status.rollout else ""
        batch = OutcomeBatch("pod", "1", rollout_id, tuple(self.outcomes))
        last = self.scores[-1].id if self.scores else ""
        return Observation(
            inferences=(self.view,),
            expected=frozenset({"pod"}),
            existing=frozenset({"pod"}),
            batches=(batch,),
            replay=ReplayBatch(rollout_id, tuple(self.scores), last, self.refusal),
        )

    @property
    def rollout(self):
        return self.status.rollout

    @property
    def state(self):
        return type(self.rollout.state).__name__


@pytest.fixture
def fleet(deployment):
    return Fleet(deployment)


def test_replay_proves_and_live_requests_confirm(fleet):
    fleet.record(200, saved=0.05)
    fleet.reconcile()
    assert fleet.rollout.plan.method == "Replay"
    assert fleet.rollout.evidence.replay.log_e > fleet.rollout.threshold
    assert fleet.state == "WaitingForTraffic"
    fleet.serve(20, gain=0.02)
    fleet.reconcile()
    assert fleet.state == "Analyzing"
    progressing = next(each for each in fleet.status.conditions if each.type == "Progressing")
    assert "better, and 20 of 40 live requests judged" in progressing.message
    fleet.serve(20, gain=0.02)
    fleet.reconcile()
    assert fleet.state in ("Promoting", "Promoted")
    assert fleet.rollout.state.reason == "ReplayBetter"


@pytest.mark.parametrize(("held_out", "outdone"), [(6200, True), (6199, False), (None, False)])
def test_a_better_one_takes_the_turn_of_one_that_lags(fleet, held_out, outdone):
    tried = Candidate(CANDIDATE, 1, "5-0", 6000)
    fleet.status = replace(fleet.status, queue=Queue(1, tried))
    fleet.record(150, saved=0.0)
    fleet.serve(20)
    fleet.reconcile()
    assert fleet.state == "Analyzing"

    other = Candidate(Draft("other", "sha256:c", "file:///c"), 2, "5-0", held_out)
    fleet.status = replace(fleet.status, queue=Queue(2, other))
    fleet.reconcile(1)
    if not outdone:
        assert fleet.state == "Analyzing"
        return
    assert fleet.rollout.state.reason == "Superseded"
    assert fleet.status.history[0].outcome == "Inconclusive"
    fleet.reconcile(1)
    assert (fleet.rollout.candidate, fleet.rollout.plan.attempt) == (other, 2)


def test_live_requests_alone_promote_nothing(fleet):
    fleet.serve(600, gain=0.3)
    fleet.reconcile()
    assert fleet.rollout.evidence.log_e > fleet.rollout.threshold
    assert fleet.state == "Analyzing"


def test_a_slower_candidate_is_refused_before_it_serves_a_request(fleet):
    fleet.record(200, saved=-0.05)
    fleet.reconcile()
    assert fleet.state == "RolledBack"
    (verdict,) = fleet.status.history
    assert (verdict.reason, verdict.requests, verdict.replayed) == (
        "ReplayHarm: all requests",
        0,
        200,
    )
    assert verdict.saved_bps == pytest.approx(-500, abs=100)


def test_only_requests_newer_than_its_training_count(fleet):
    fleet.reconcile()
    assert fleet.rollout.evidence.replay.after == "5-0"
    fleet.scores = [Score(f"{number}-0", "", 50, 20.0, 10.0) for number in range(6)]
    fleet.reconcile()
    assert fleet.rollout.evidence.replay.requests == 0


def test_drafts_that_cannot_be_compared_end_it(fleet):
    fleet.refusal = "their shapes differ"
    fleet.reconcile()
    assert fleet.state == "Inconclusive"
    assert fleet.status.history[0].reason == "NotComparable: their shapes differ"


def test_a_batch_of_another_rollout_says_nothing(fleet):
    fleet.reconcile()
    seen = replace(fleet._seen(), replay=ReplayBatch("chat-0", (), "99-0", "gone"))
    status = plan(fleet.deployment, fleet.status, seen, NOW).status
    assert status.rollout.evidence.replay.after == "5-0"
    assert status.live_rollout is not None


def test_alpha_is_spent_over_the_candidates_since_the_last_promotion(fleet):
    """However many copies are tried, all of them together have alpha."""
    spent = []
    for number in range(1, 6):
        fleet.reconcile()
        assert fleet.rollout.plan.attempt == number
        spent.append(math.exp(-fleet.rollout.promotion_threshold))
        fleet.scores = []
        fleet.record(200, saved=-0.05)
        fleet.reconcile()
        assert fleet.state == "RolledBack"
        fleet.offer(number + 1)
    assert sum(spent) < 0.01
    assert spent[0] == pytest.approx(0.005)
    # Harm is harm as before.
    assert fleet.rollout.threshold == pytest.approx(math.log(100))


def test_a_promotion_begins_the_spending_anew(fleet):
    fleet.status = replace(fleet.status, attempts=7)
    fleet.record(400, saved=0.05)
    fleet.reconcile()
    fleet.serve(60, gain=0.02)
    fleet.reconcile()
    assert fleet.rollout.plan.attempt == 8
    assert fleet.state == "Promoting"
    fleet.view = InferenceView("pod", "1", CANDIDATE)
    fleet.status = plan(fleet.deployment, fleet.status, fleet._seen(), NOW).status
    assert fleet.state == "Promoted"
    assert fleet.status.attempts == 0


@pytest.mark.parametrize("change", ["suspended", "no stable draft", "by choice"])
def test_where_live_traffic_decides(manifest, change):
    if change == "suspended":
        manifest["spec"]["trainer"] = {"suspend": True}
    if change == "by choice":
        manifest["spec"]["rollout"]["analysis"]["method"] = "Canary"
    fleet = Fleet(parse_manifest(json.dumps(manifest), "test"))
    if change == "no stable draft":
        fleet.view = replace(fleet.view, stable=None)
    fleet.reconcile()
    assert fleet.rollout.plan.method == "Canary"
    assert fleet.rollout.evidence.replay is None
