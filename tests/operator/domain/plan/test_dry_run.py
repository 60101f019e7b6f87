"""A dry run changes nothing but the history."""

import json
from datetime import UTC, datetime

import pytest
from support.manifest import changed

from aurora_common.errors import ConflictError, InvalidInputError
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.command import Command, checked
from aurora_operator.domain.plan.observation import InferenceView, Observation, ReplayBatch
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.rollout.replay import Score
from aurora_operator.domain.rollout.state import Replaying, WouldPromote
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STABLE = Draft("ckpt-1", "sha256:a", "file:///a")
FIRST = Candidate(Draft("ckpt-2", "sha256:b", "file:///b"), 2, "5-0")
SECOND = Candidate(Draft("ckpt-3", "sha256:c", "file:///c"), 3, "5-0")


def deployment(**spec):
    manifest = changed("spec.rollout", {"dryRun": True})
    manifest["spec"] |= spec
    return parse_manifest(json.dumps(manifest), "test")


def reconcile(status, *, saved=None, published=(), it=None, instance="1", command=None):
    """The status after one more look, as a restarted operator reads it, and what was to be done."""
    rollout_id = status.rollout.id if status.rollout else ""
    steps = 20.0 * (1 - (saved or 0.0))
    found = tuple(Score(f"{number}-0", "", 50, 20.0, steps) for number in range(6, 406))
    view = InferenceView("pod", instance, STABLE)
    observed = Observation(
        inferences=(view,),
        expected=frozenset({"pod"}),
        existing=frozenset({"pod"}),
        replay=None if saved is None else ReplayBatch(rollout_id, found, "405-0"),
        published=published,
        command=command,
    )
    decision = plan(it or deployment(), status, observed, NOW)
    assert status_from_json(status_to_json(decision.status)) == decision.status
    return decision.status, decision.actions


@pytest.fixture
def status():
    begun, _ = reconcile(Status(stable=STABLE, queue=Queue(2, FIRST)))
    return begun


@pytest.fixture
def progressing():
    def found(status):
        return next(each for each in status.conditions if each.type == "Progressing")

    return found


def test_it_replays_and_no_inference_hears_of_the_candidate(status, progressing):
    assert isinstance(status.rollout.state, Replaying)
    assert status.attempts == 0
    assert FIRST.draft.digest in status.needed_digests
    assert progressing(status).reason == "RolloutReplaying"
    assert "a dry run" in progressing(status).message
    # A restarted inference is no crash of the candidate, which it does not have.
    for instance in ("1", "2", "3", "4"):
        status, actions = reconcile(status, instance=instance)
        assert actions == ()
    assert status.rollout.evidence.crashes == 0
    assert dict(status.rollout.cursors) == {}


@pytest.mark.parametrize(
    ("saved", "outcome", "reason"),
    [
        (0.1, "WouldPromote", "ReplayBetter"),
        (-0.1, "WouldRollBack", "ReplayHarm: all requests"),
        (0.0, "", ""),
    ],
)
def test_the_verdict_that_it_would_have_had_is_recorded(status, saved, outcome, reason):
    after, actions = reconcile(status, saved=saved)
    assert (after.stable, after.watch, actions) == (STABLE, None, ())
    if not outcome:
        assert after.live_rollout is not None
        assert after.history == ()
        return
    (verdict,) = after.history
    assert (verdict.outcome, verdict.reason, verdict.requests) == (outcome, reason, 0)
    assert verdict.saved_bps == saved * 10_000
    assert after.live_rollout is None


def test_the_next_candidate_is_taken_with_the_same_share_of_alpha(status):
    status, _ = reconcile(status, saved=0.1, published=(SECOND,))
    assert isinstance(status.rollout.state, WouldPromote)
    status, actions = reconcile(status)
    assert status.rollout.id == "chat-3"
    assert (status.rollout.plan.attempt, status.attempts, actions) == (1, 0, ())


def test_a_changed_manifest_applies_to_the_next_rollout(status):
    real = deployment(rollout={})
    status, actions = reconcile(status, it=real, published=(SECOND,))
    assert isinstance(status.rollout.state, Replaying)
    assert actions == ()
    for _ in range(2):
        status, _ = reconcile(status, it=real, saved=0.1)
    assert (status.rollout.id, status.rollout.plan.dry_run) == ("chat-3", False)


def test_it_can_be_aborted_and_not_promoted(status):
    with pytest.raises(ConflictError, match=r"chat-2' is a dry run.* set spec.rollout.dryRun: fal"):
        checked(Command("promote", "chat-2"), deployment(), status)
    after, _ = reconcile(status, command=Command("abort", "chat-2"))
    assert [each.reason for each in after.history] == ["Aborted"]


@pytest.mark.parametrize(
    ("stable", "spec", "says"),
    [
        (None, {}, "ckpt-2 waits: a dry run compares with a stable draft, and there is none"),
        (STABLE, {"trainer": {"suspend": True}}, "a dry run needs the trainer, which is suspended"),
    ],
)
def test_without_anything_to_compare_with_the_candidate_waits(progressing, stable, spec, says):
    before = Status(stable=stable, queue=Queue(2, FIRST))
    view = InferenceView("pod", "1", stable)
    observed = Observation(inferences=(view,), expected=frozenset({"pod"}))
    after = plan(deployment(**spec), before, observed, NOW).status
    assert after.queue.waiting == FIRST
    assert after.rollout is None
    assert says in progressing(after).message


def test_it_needs_replay():
    with pytest.raises(InvalidInputError, match=r"dryRun.*leave out analysis\.method"):
        deployment(rollout={"dryRun": True, "analysis": {"method": "Canary"}})
