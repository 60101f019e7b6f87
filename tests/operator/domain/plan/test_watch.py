"""After a promotion: the same replay goes on, and harm brings the former draft back."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from support.manifest import changed

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.action import StageDraft
from aurora_operator.domain.plan.observation import InferenceView, Observation, ReplayBatch
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.rollout.evidence import ArmMean, Evidence
from aurora_operator.domain.rollout.replay import Replay, Score
from aurora_operator.domain.rollout.state import Analyzing, Clock, Inconclusive, Promoting
from aurora_operator.domain.rollout.step_cost import StepCost
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Rollout, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FORMER = Draft("ckpt-1", "sha256:a", "file:///a")
NEW = Draft("ckpt-2", "sha256:b", "file:///b")
NEXT = Draft("ckpt-3", "sha256:c", "file:///c")


def deployment(**rollout):
    manifest = changed("spec.rollout.steps", [{"weightPercent": 50}])
    manifest["spec"]["rollout"] |= {"guardrails": [], **rollout}
    return parse_manifest(json.dumps(manifest), "test")


DEPLOYMENT = deployment()


def scores(count, saved, *, start=1):
    """As the judge has them: the new draft is stable, and the former one the candidate."""
    return tuple(
        Score(f"{number}-0", "", 50, 20.0 * (1 - saved), 20.0)
        for number in range(start, start + count)
    )


def seen(*found, stable=NEW, after="", watch="chat-2", published=()):
    view = InferenceView("pod", "1", stable)
    return Observation(
        inferences=(view,),
        expected=frozenset({"pod"}),
        existing=frozenset({"pod"}),
        watch=ReplayBatch(watch, found, after or (found[-1].id if found else "")),
        published=published,
    )


def decided(status, observed, now=NOW, it=DEPLOYMENT):
    """The decision, with its status as a restarted operator would read it."""
    decision = plan(it, status, observed, now)
    assert status_from_json(status_to_json(decision.status)) == decision.status
    return decision


def promoting(it=DEPLOYMENT, **evidence):
    terms = plan(it, Status(stable=FORMER, queue=Queue(2, Candidate(NEW, 2))), seen(), NOW)
    shown = Evidence(candidate=ArmMean(9, 0.6), **({"replay": Replay("5-0", 9)} | evidence))
    rollout = replace(terms.status.rollout, state=Promoting("ReplayBetter", NOW), evidence=shown)
    return Status(stable=FORMER, rollout=rollout, queue=Queue(2))


@pytest.fixture
def watching():
    status = decided(promoting(), seen()).status
    assert status.stable == NEW
    return status


def test_a_promotion_begins_one_where_replay_had_come_to(watching):
    watch = watching.watch
    assert (watch.rollout_id, watch.former, watch.alpha) == ("chat-2", FORMER, "0.01")
    assert watch.ends_at == NOW + timedelta(hours=1)
    # Only requests that were admitted since then count.
    assert watch.replay == Replay("5-0", begin="5-0")
    assert FORMER.digest in watching.needed_digests


def test_a_faster_draft_stays_and_the_watch_ends(watching):
    status = decided(watching, seen(*scores(300, 0.05, start=6))).status
    assert (status.stable, status.watch.replay.requests) == (NEW, 300)
    assert status.watch.replay.saved_bps == 500
    status = decided(status, seen(), NOW + timedelta(minutes=59)).status
    assert status.watch is not None
    status = decided(status, seen(), NOW + timedelta(hours=1)).status
    assert (status.stable, status.watch) == (NEW, None)
    assert FORMER.digest not in status.needed_digests


def test_harm_makes_the_former_draft_stable_again(watching):
    observed = seen(*scores(300, -0.05, start=6))
    status = decided(watching, observed).status
    assert (status.stable, status.watch) == (FORMER, None)
    verdict = status.history[0]
    assert (verdict.outcome, verdict.digest) == ("RolledBack", NEW.digest)
    assert verdict.reason == "WatchHarm: all requests"
    assert (verdict.saved_bps, verdict.replayed) == (-500, 300)
    # Stored first; then every inference is given it, in place.
    assert plan(DEPLOYMENT, watching, observed, NOW).actions == ()
    assert decided(status, seen()).actions == (StageDraft("pod", "stable", FORMER),)


def test_what_its_steps_were_found_to_cost_more_counts_against_it():
    """It saves 5% of the steps, each of which takes 10% longer."""
    status = decided(promoting(step_cost=StepCost(9, 0.1)), seen()).status
    status = decided(status, seen(*scores(300, 0.05, start=6))).status
    assert status.history[0].reason == "WatchHarm: all requests"
    assert status.stable == FORMER


def test_a_rollout_in_progress_loses_its_baseline_and_ends(watching):
    began = decided(replace(watching, queue=Queue(3, Candidate(NEXT, 3))), seen()).status
    assert began.live_rollout.id == "chat-3"
    live = Analyzing(0, NOW, 0, Clock(NOW))
    began = replace(began, rollout=replace(began.rollout, state=live))
    status = decided(began, seen(*scores(300, -0.05, start=6))).status
    assert status.rollout.state == Inconclusive("StableReverted")
    reasons = [(verdict.id, verdict.reason) for verdict in status.history[:2]]
    assert reasons == [("chat-3", "StableReverted"), ("chat-2-watch", "WatchHarm: all requests")]
    assert status.stable == FORMER


def test_another_rollout_may_begin_meanwhile(watching):
    status = replace(watching, queue=Queue(3, Candidate(NEXT, 3)))
    assert decided(status, seen()).status.live_rollout.id == "chat-3"


def test_a_page_counts_once_and_only_that_of_its_own_promotion(watching):
    page = seen(*scores(30, 0.01, start=6))
    once = decided(watching, page).status
    assert decided(once, page).status.watch.replay == once.watch.replay
    foreign = seen(*scores(30, 0.01, start=40), watch="chat-1")
    assert decided(once, foreign).status.watch.replay == once.watch.replay


@pytest.mark.parametrize("why", ["by choice", "live traffic decided", "no draft before"])
def test_where_there_is_none(why):
    if why == "by choice":
        it = deployment(watchAfterPromotion="0s")
        status = decided(promoting(it), seen(), it=it).status
    elif why == "live traffic decided":
        it = deployment(analysis={"method": "Canary"})
        status = decided(promoting(it, replay=None), seen(), it=it).status
    else:
        status = decided(replace(promoting(), stable=None), seen()).status
    assert (status.stable, status.watch) == (NEW, None)


def test_a_rollout_of_its_own_plan_keeps_its_alpha():
    rollout = promoting().rollout
    assert isinstance(rollout, Rollout)
    cautious = replace(rollout, plan=replace(rollout.plan, alpha="0.001"))
    status = decided(replace(promoting(), rollout=cautious), seen()).status
    assert status.watch.threshold == pytest.approx(6.9078, abs=1e-3)
