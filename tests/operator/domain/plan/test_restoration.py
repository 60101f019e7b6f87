"""What a deployment that is created anew takes over of an earlier one of its name."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.manifest import changed

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.action import StageDraft
from aurora_operator.domain.plan.housekeeping import Housekeeping, housekeeping
from aurora_operator.domain.plan.observation import (
    InferenceView,
    Observation,
    Restorable,
    TrainerView,
)
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Status, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INITIAL = Draft("draft", "sha256:0", "pvc://models/draft")
PROMOTED = Candidate(Draft("ckpt-7", "sha256:7", "file:///store/ckpt-7"), 7)
VERDICT = Verdict("chat-8", "ckpt-8", "sha256:8", "RolledBack", "x", -3, 12, NOW)


def published(sequence):
    return Candidate(
        Draft(f"ckpt-{sequence}", f"sha256:{sequence}", f"file:///store/{sequence}"), sequence
    )


def deployment(policy="LastPromoted"):
    return parse_manifest(json.dumps(changed("spec.modelStore.restorePolicy", policy)), "test")


def seen(*, stable=None, found=PROMOTED, new=()):
    restorable = None if found is None else Restorable(found, seen_sequence=9, attempts=2)
    return Observation(
        initial=INITIAL,
        inferences=(InferenceView("pod", "1", stable),),
        expected=frozenset({"pod"}),
        existing=frozenset({"pod"}),
        trainer=TrainerView("WaitingForTrajectories", 48, 60, restorable=restorable),
        published=new,
    )


def decide(status, observed, policy="LastPromoted"):
    return plan(deployment(policy), status, observed, NOW)


def test_the_promoted_draft_is_stable_again_and_staged():
    decision = decide(Status(), seen())
    assert (decision.status.stable, decision.status.attempts) == (PROMOTED.draft, 2)
    decision = decide(decision.status, seen())
    assert decision.actions == (StageDraft("pod", "stable", PROMOTED.draft),)


def test_it_takes_the_place_of_the_manifests_draft():
    status = decide(Status(stable=INITIAL), seen(stable=INITIAL)).status
    assert status.stable == PROMOTED.draft


def test_what_was_seen_before_is_not_tried_again():
    known = tuple(published(sequence) for sequence in range(1, 10))
    status = decide(Status(), seen(new=known)).status
    assert (status.queue, status.rollout) == (Queue(9), None)

    status = decide(status, seen(stable=PROMOTED.draft, new=(published(10),))).status
    assert status.rollout.candidate == published(10)
    assert status.attempts == 3


def test_one_that_waited_too_early_is_forgotten():
    waiting = Status(queue=Queue(9, published(9)))
    assert decide(waiting, seen()).status.queue == Queue(9)
    later = Status(queue=Queue(11, published(11)))
    status = decide(later, seen()).status
    assert (status.stable, status.rollout.candidate) == (PROMOTED.draft, published(11))


@pytest.mark.parametrize(
    "status",
    [
        Status(stable=INITIAL, history=(VERDICT,)),
        decide(
            Status(stable=INITIAL), seen(found=None, stable=INITIAL, new=(published(1),))
        ).status,
    ],
    ids=["a verdict", "a rollout"],
)
def test_a_deployment_that_decided_itself_keeps_its_own(status):
    assert decide(status, seen(stable=INITIAL)).status.stable == INITIAL


def test_never_is_never():
    status = decide(Status(stable=INITIAL), seen(stable=INITIAL), "Never").status
    assert status.stable == INITIAL


def test_nothing_recorded_changes_nothing():
    status = decide(Status(), seen(found=None, stable=INITIAL)).status
    assert (status.stable, status.attempts) == (INITIAL, 0)


def test_only_what_a_rollout_decided_is_recorded():
    """Else a deployment that begins would record its manifest's draft before it was told."""
    status = Status(stable=INITIAL, queue=Queue(3), attempts=1)
    kept = Housekeeping(5, frozenset({"sha256:0"}), 3, INITIAL, (), 1)
    assert housekeeping(5, status, INITIAL) == kept
    assert not kept.records
    decided = replace(kept, verdicts=(VERDICT,))
    assert housekeeping(5, replace(status, history=(VERDICT,)), None) == decided
    assert decided.records
    assert housekeeping(5, Status(), replace(INITIAL, digest="")).needed == frozenset()
