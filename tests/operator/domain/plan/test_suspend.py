"""A suspended deployment: nothing is decided, nothing is lost, and all goes on where it was."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from support.manifest import changed

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.command import Command
from aurora_operator.domain.plan.observation import (
    ComponentView,
    InferenceView,
    Observation,
    OutcomeBatch,
    Scale,
)
from aurora_operator.domain.plan.plan import plan, rollout_terms
from aurora_operator.domain.rollout.evidence import Evidence
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Pending,
    Promoting,
    RolledBack,
    WaitingForTraffic,
)
from aurora_operator.domain.status.deployment import (
    Candidate,
    Cursor,
    Draft,
    Queue,
    Rollout,
    Status,
    Watch,
)
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
STABLE = Draft("ckpt-0", "sha256:0", "file:///store/ckpt-0")
CANDIDATE = Draft("ckpt-1", "sha256:1", "file:///store/ckpt-1")
NEXT = Draft("ckpt-2", "sha256:2", "file:///store/ckpt-2")
RUNNING = parse_manifest(json.dumps(changed("spec.suspend", False)), "test")
SUSPENDED = parse_manifest(json.dumps(changed("spec.suspend", True)), "test")
PODS = Scale(1, 1, 1, 1, "a=b")
NO_PODS = Scale(0, 0, 0, 0, "a=b")
STOPPED = Observation(scale=NO_PODS)


def rolling(state, **fields):
    rollout = Rollout(
        "chat-1", Candidate(CANDIDATE, 1), rollout_terms(RUNNING, Status()), state, **fields
    )
    return Status(stable=STABLE, rollout=rollout, queue=Queue(1), attempts=3)


def ending(*outcomes, open_stable=0):
    """The pod that served ends, and tells of its last requests."""
    batch = OutcomeBatch(
        "pod", "i1", "chat-1", tuple(enumerate(outcomes, start=1)), open_stable=open_stable
    )
    return Observation(
        existing=frozenset({"pod"}),
        batches=(batch,),
        components=(ComponentView("inference", ready=False, message="pod pod is ending"),),
        scale=NO_PODS,
    )


def serving():
    view = InferenceView("new", "i2", STABLE, CANDIDATE, "chat-1", 500)
    names = frozenset({"new"})
    components = (ComponentView("inference", ready=True),)
    return Observation(
        inferences=(view,), expected=names, existing=names, components=components, scale=PODS
    )


def outcome(arm):
    return Outcome(arm, 500, 20, 10, "completed", 20_000, STABLE.digest, CANDIDATE.digest)


def decided(deployment, status, observed, now=NOW):
    """The decision, with its status as a restarted operator would read it."""
    decision = plan(deployment, status, observed, now)
    assert status_from_json(status_to_json(decision.status)) == decision.status
    return decision


def condition(status, kind):
    found = next((one for one in status.conditions if one.type == kind), None)
    return found and (found.status, found.reason)


@pytest.mark.parametrize(
    "state",
    [Pending(Clock(NOW)), WaitingForTraffic(Clock(NOW)), Analyzing(1, NOW, 5, Clock(NOW))],
)
def test_a_rollout_waits_and_its_time_does_not_pass(state):
    status = decided(SUSPENDED, rolling(state), STOPPED, NOW).status
    assert type(status.rollout.state) is type(state)

    much_later = NOW + 1000 * HOUR
    kept = decided(SUSPENDED, status, STOPPED, much_later).status
    assert kept.rollout == status.rollout

    resumed = decided(RUNNING, kept, Observation(scale=PODS), much_later).status
    assert resumed.rollout.state.clock.elapsed(much_later) == timedelta(0)
    assert (resumed.stable, resumed.attempts) == (STABLE, 3)


def test_last_outcomes_count_and_a_second_look_changes_nothing():
    state = Analyzing(1, NOW, 0, Clock(NOW))
    status = rolling(state, cursors={"pod": Cursor("i1", 0, open_stable=2)})
    told = ending(outcome("stable"), outcome("candidate"), outcome("stable"))

    status = decided(SUSPENDED, status, told).status
    assert status.rollout.evidence.requests == 3

    gone = decided(SUSPENDED, status, STOPPED).status
    assert gone.rollout.evidence.requests == 3
    assert decided(SUSPENDED, gone, STOPPED, NOW + HOUR).status == gone


def test_the_next_run_of_the_same_name_did_not_crash():
    """On one machine every run of the inference has the same name."""
    state = Analyzing(1, NOW, 0, Clock(NOW))
    status = rolling(state, cursors={"new": Cursor("i1", 9)})

    status = decided(SUSPENDED, status, STOPPED).status
    status = decided(RUNNING, status, serving()).status

    assert status.rollout.evidence.crashes == 0
    assert status.rollout.cursors["new"].instance == "i2"


def test_harm_that_was_told_last_is_judged_once_it_goes_on():
    harmful = Evidence(crashes=3)
    status = rolling(Analyzing(1, NOW, 0, Clock(NOW)), evidence=harmful)

    status = decided(SUSPENDED, status, STOPPED).status
    assert isinstance(status.rollout.state, Analyzing)

    status = decided(RUNNING, status, Observation(scale=PODS)).status
    assert status.rollout.state == RolledBack("CrashHarm")


def test_a_promotion_gets_its_time_anew():
    status = rolling(Promoting("ReplayBetter", NOW))

    status = decided(SUSPENDED, status, STOPPED, NOW + HOUR).status
    assert status.rollout.state == Promoting("ReplayBetter")

    status = decided(RUNNING, status, serving(), NOW + 2 * HOUR).status
    assert status.rollout.state == Promoting("ReplayBetter", NOW + 2 * HOUR)


def test_commands_are_carried_out():
    status = rolling(Pending(Clock(NOW)))
    observed = replace(STOPPED, command=Command("abort", "chat-1"))
    assert decided(SUSPENDED, status, observed).status.rollout.state == RolledBack("Aborted")


def test_nothing_begins_and_nothing_is_done():
    status = Status(stable=STABLE, queue=Queue(2, Candidate(NEXT, 2)))

    decision = decided(SUSPENDED, status, replace(serving(), scale=NO_PODS))

    assert decision.actions == ()
    assert decision.status.rollout is None
    assert decision.status.queue.waiting.draft == NEXT


def test_a_watch_goes_on_for_the_time_that_was_left():
    watch = Watch("chat-1", STABLE, "0.01", NOW + HOUR, Replay("5-0"))
    status = Status(stable=CANDIDATE, watch=watch)

    status = decided(SUSPENDED, status, STOPPED, NOW + HOUR / 2).status
    status = decided(SUSPENDED, status, STOPPED, NOW + 50 * HOUR).status
    assert STABLE.digest in status.needed_digests

    status = decided(RUNNING, status, STOPPED, NOW + 100 * HOUR).status
    assert status.watch == replace(watch, ends_at=NOW + 100 * HOUR + HOUR / 2)


def test_what_is_said_of_it():
    status = decided(SUSPENDED, rolling(Pending(Clock(NOW))), ending()).status
    assert condition(status, "Ready") == (False, "Suspended")
    assert condition(status, "Suspended") == (False, "Suspending")
    assert condition(status, "Reconciling") == (True, "Suspending")

    status = decided(SUSPENDED, status, STOPPED).status
    assert condition(status, "Ready") == (False, "Suspended")
    assert condition(status, "Suspended") == (True, "Suspended")
    assert condition(status, "Progressing") == (False, "Suspended")
    assert condition(status, "Reconciling") == (False, "AsExpected")
    assert condition(status, "Degraded") == (False, "AsExpected")

    status = decided(RUNNING, status, serving()).status
    assert condition(status, "Ready") == (True, "Serving")
    assert condition(status, "Suspended") == (False, "Resumed")


def test_one_that_never_was_has_no_such_condition():
    assert condition(decided(RUNNING, Status(stable=STABLE), serving()).status, "Suspended") is None
