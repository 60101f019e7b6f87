"""Slots are keyed by digest and know no engine."""

from __future__ import annotations

import pytest

from aurora_common.errors import ConflictError, InvalidInputError
from aurora_inference.contract import Cursor, DraftReference, Served
from aurora_inference.slots.outcome_log import OutcomeLog
from aurora_inference.slots.slots import Slots

STABLE, CANDIDATE = DraftReference("one", "sha256:1"), DraftReference("two", "sha256:2")
SERVED = Served(8, 3, time_to_first_token_us=70, time_per_output_token_us=9)


@pytest.fixture
def slots():
    made = Slots(OutcomeLog("i"))
    made.stage("stable", STABLE)
    made.stage("candidate", CANDIDATE)
    return made


def test_the_draw_decides_the_arm(slots):
    slots.split("r1", 2500)
    candidate, stable = slots.assign(0.2499), slots.assign(0.25)
    assert (candidate.arm, candidate.draft) == ("candidate", CANDIDATE)
    assert (stable.arm, stable.draft) == ("stable", STABLE)
    assert (candidate.sequence, stable.sequence) == (1, 2)
    for assignment in (candidate, stable):
        slots.end(assignment, "cancelled", SERVED)
    outcomes = slots.outcomes.page("r1", Cursor("", 0), 10).outcomes
    assert [each.arm for each in outcomes] == ["candidate", "stable"]
    for each in outcomes:
        assert (each.stable_digest, each.candidate_digest) == (STABLE.digest, CANDIDATE.digest)
        assert (each.candidate_bps, each.ending, each.served) == (2500, "cancelled", SERVED)


def test_the_drafts_are_those_of_the_draw(slots):
    slots.stage("stable", CANDIDATE)
    slots.split("r1", 2500)
    assignment = slots.assign(0.9)
    slots.stage("stable", STABLE)
    slots.end(assignment, "completed", SERVED)
    (outcome,) = slots.outcomes.page("r1", Cursor("", 0), 10).outcomes
    assert outcome.stable_digest == CANDIDATE.digest


def test_a_request_without_a_chance_of_the_candidate_is_not_evidence(slots):
    slots.split("r1", 0)
    assignment = slots.assign(0.0)
    assert (assignment.arm, assignment.rollout_id) == ("stable", "")
    slots.end(assignment, "completed", SERVED)
    assert slots.outcomes.page("r1", Cursor("", 0), 10).outcomes == ()


def test_promotion_is_idempotent_and_ends_the_split(slots):
    slots.split("r1", 5000)
    for _ in range(2):
        slots.promote(CANDIDATE.digest)
    assert (slots.stable, slots.candidate, slots.candidate_bps) == (CANDIDATE, None, 0)
    assert slots.outcomes.rollout_id == ""
    assert slots.digests == {CANDIDATE.digest}


def test_only_the_staged_candidate_is_promoted(slots):
    with pytest.raises(ConflictError, match="candidate staged is sha256:2"):
        slots.promote("sha256:3")


@pytest.mark.parametrize(
    ("rollout_id", "bps", "problem"),
    [("r1", -1, "-1"), ("r1", 10_001, "0 to 10000"), ("", 5, "name the rollout")],
)
def test_an_invalid_split_is_refused(slots, rollout_id, bps, problem):
    with pytest.raises(InvalidInputError, match=problem):
        slots.split(rollout_id, bps)


def test_no_traffic_without_a_candidate(slots):
    slots.unstage()
    with pytest.raises(ConflictError, match="no candidate"):
        slots.split("r1", 5)
