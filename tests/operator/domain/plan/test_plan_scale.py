"""Many inferences that come and go, the draft to begin with, and what is told of them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.plan.action import StageDraft
from aurora_operator.domain.plan.command import Command, parse_request
from aurora_operator.domain.plan.observation import (
    ComponentView,
    InferenceView,
    Observation,
    Problem,
    Refusal,
    Scale,
)
from aurora_operator.domain.plan.plan import plan, rollout_terms
from aurora_operator.domain.rollout.evidence import ArmMean, Evidence
from aurora_operator.domain.rollout.guardrail import GuardrailState
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Pending,
    Promoted,
    Promoting,
    RolledBack,
    WaitingForTraffic,
)
from aurora_operator.domain.status.deployment import Candidate, Cursor, Draft, Rollout, Status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = Draft("draft", "", "pvc://models/draft")
STABLE = Draft("ckpt-0", "sha256:0", "pvc://models/draft")
CANDIDATE = Draft("ckpt-1", "sha256:1", "file:///store/ckpt-1")
SERVING = (ComponentView("inference", ready=True),)


def seen(*views, expected=None, **more):
    """An observation of these inferences, all of which serve."""
    names = frozenset(view.name for view in views) if expected is None else frozenset(expected)
    more.setdefault("existing", names)
    more.setdefault("components", SERVING)
    return Observation(inferences=views, expected=names, **more)


def condition(status, kind):
    return next(found for found in status.conditions if found.type == kind)


@pytest.fixture
def decide(deployment):
    def decided(status, observed, now=NOW):
        return plan(deployment, status, observed, now)

    return decided


@pytest.fixture
def trying(deployment):
    """A status with the candidate on trial, in a given state."""

    def status(state):
        terms = rollout_terms(deployment, Status())
        rollout = Rollout("chat-1", Candidate(CANDIDATE, 1), terms, state)
        return Status(stable=STABLE, rollout=rollout)

    return status


def staged(name, *, bps=2000):
    return InferenceView(name, "i1", STABLE, CANDIDATE, "chat-1", bps)


def test_the_draft_to_begin_with_is_staged_where_none_is(decide):
    empty = [InferenceView("a", "i1"), InferenceView("b", "i1")]
    decision = decide(Status(), seen(*empty, initial=FIRST))
    assert decision.actions == (StageDraft("a", "stable", FIRST), StageDraft("b", "stable", FIRST))
    progressing = condition(decision.status, "Progressing")
    assert (progressing.status, progressing.reason) == (True, "DraftsStaging")


def test_what_they_compute_on_is_in_the_status_and_stays_while_none_answers(decide):
    gpu = "cuda:0 (NVIDIA H200)"
    views = [
        InferenceView("a", "i1", STABLE, device=gpu),
        InferenceView("b", "i1", STABLE, device="cpu"),
        InferenceView("c", "i1", STABLE, device=gpu),
        InferenceView("d", "i1", STABLE),
    ]
    status = decide(Status(), seen(*views)).status
    assert status.device == f"cpu, {gpu}"
    assert decide(status, seen()).status.device == f"cpu, {gpu}"


def test_what_they_report_is_adopted_and_given_to_the_rest(decide):
    views = [InferenceView("a", "i1", STABLE), InferenceView("b", "i1")]
    decision = decide(Status(), seen(*views, initial=FIRST))
    assert decision.status.stable == STABLE
    assert decision.actions == ()
    decision = decide(decision.status, seen(*views, initial=FIRST))
    assert decision.actions == (StageDraft("b", "stable", STABLE),)


def test_no_comparison_begins_before_the_first_draft_serves(decide):
    published = (Candidate(CANDIDATE, 1),)
    status = decide(Status(), seen(InferenceView("a", "i1"), initial=FIRST, published=published))
    assert status.status.rollout is None
    after = decide(status.status, seen(InferenceView("a", "i1", STABLE), initial=FIRST)).status
    assert (after.stable, after.rollout.without_stable) == (STABLE, False)


def test_a_first_draft_named_amid_a_rollout_waits_for_its_end(decide, trying):
    status = replace(trying(WaitingForTraffic(Clock(NOW))), stable=None)
    view = InferenceView("a", "i1", None, CANDIDATE, "chat-1", 2000)
    assert decide(status, seen(view, initial=FIRST)).actions == ()


def test_a_refused_first_draft_is_told_by_whom_and_why(decide):
    refusal = Refusal("a", "", "lm_head holds NaN", lasting=False, may_retry=False)

    def after(refusal):
        observed = seen(InferenceView("a", "i1"), initial=FIRST, refusals=(refusal,))
        return decide(Status(), observed)

    decision = after(refusal)
    assert decision.actions == ()
    assert after(replace(refusal, may_retry=True)).actions == (StageDraft("a", "stable", FIRST),)
    degraded = condition(decision.status, "Degraded")
    assert (degraded.reason, degraded.message) == ("StableDraftRefused", "a: lm_head holds NaN")
    assert not condition(decision.status, "Progressing").status


@pytest.mark.parametrize("state", [Pending(Clock(NOW)), Promoting("x", NOW)])
def test_one_that_serves_and_is_not_seen_holds_the_rollout(decide, trying, state):
    is_pending = isinstance(state, Pending)
    view = staged("a") if is_pending else InferenceView("a", "i1", CANDIDATE)
    observed = seen(view, expected={"a", "b"}, absences={"b": "answers UNAVAILABLE: refused"})
    status = decide(trying(state), observed).status
    assert status.rollout.state == state
    message = condition(status, "Progressing").message
    assert message.endswith("; waiting for b: answers UNAVAILABLE: refused")
    after = decide(status, seen(view)).status
    expected = WaitingForTraffic(Clock(NOW)) if is_pending else Promoted("x")
    assert after.rollout.state == expected


def test_one_that_is_not_ready_holds_nothing_and_is_served_all_the_same(decide, trying):
    observed = seen(staged("a"), InferenceView("b", "i1"), expected={"a"})
    decision = decide(trying(Pending(Clock(NOW))), observed)
    assert decision.status.rollout.state == WaitingForTraffic(Clock(NOW))
    decision = decide(decision.status, observed)
    assert {action.inference for action in decision.actions} == {"b"}


def test_without_an_inference_nothing_moves(decide, trying):
    status = decide(trying(Pending(Clock(NOW))), seen()).status
    assert status.rollout.state == Pending(Clock(NOW))
    assert "waiting for an inference" in condition(status, "Progressing").message


def test_many_that_are_awaited_are_told_briefly(decide, trying):
    absences = {f"pod-{number}": "is away" for number in range(9)}
    status = decide(trying(Pending()), seen(expected=set(absences), absences=absences)).status
    assert condition(status, "Progressing").message == (
        "chat-1 is Pending; waiting for pod-0: is away; waiting for pod-1: is away; "
        "waiting for pod-2: is away; and 6 more"
    )


def test_a_guardrail_that_holds_back_is_named(decide, trying):
    status = trying(Analyzing(1, NOW, 0, Clock(NOW)))
    evidence = Evidence(
        log_wealth=(9.0,) * 8,
        stable=ArmMean(500, 0.5),
        guardrails=(GuardrailState("tpot", 1000, effect=0.2),),
    )
    status = replace(status, rollout=replace(status.rollout, evidence=evidence))
    status = decide(status, seen(staged("a"))).status
    assert isinstance(status.rollout.state, Analyzing)
    assert condition(status, "Progressing").message == (
        "chat-1 is Analyzing at 50% of the traffic; held back by tpot"
    )


def test_cursors_of_those_gone_stay_until_the_end(decide, trying):
    status = trying(WaitingForTraffic())
    cursors = {"a": Cursor("i1", 3), "gone": Cursor("i7", 9)}
    status = replace(status, rollout=replace(status.rollout, cursors=cursors))
    status = decide(status, seen(staged("a"))).status
    assert set(status.rollout.cursors) == {"a", "gone"}
    order = Command("abort", "chat-1")
    status = decide(status, seen(staged("a"), command=order)).status
    assert set(status.rollout.cursors) == {"a"}


def test_a_written_order_is_answered_once(decide, trying):
    order = parse_request("abort/chat-1")
    status = decide(trying(WaitingForTraffic()), seen(staged("a"), command=order)).status
    assert status.rollout.state == RolledBack("Aborted")
    answer = status.last_command
    assert (answer.request, answer.outcome, answer.at) == ("abort/chat-1", "Done", NOW)
    later = NOW + timedelta(minutes=1)
    again = decide(status, seen(InferenceView("a", "i1", STABLE), command=order), later).status
    assert again.last_command == answer


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ("abort/chat-7", "rollout 'chat-7' is not in progress; 'chat-1' is"),
        ("abort", "'abort' is no command: use abort/<rollout id> or promote/<rollout id>"),
        ("promote/", "is no command"),
        ("x" * 5000, "is no command"),
    ],
)
def test_a_written_order_that_does_not_fit_is_refused(decide, trying, request_, says):
    order = parse_request(request_)
    status = decide(trying(WaitingForTraffic()), seen(staged("a"), command=order)).status
    assert isinstance(status.rollout.state, WaitingForTraffic)
    assert status.last_command.outcome == "Refused"
    assert says in status.last_command.message
    assert len(status.last_command.request) <= 128


def test_an_empty_order_is_none():
    assert parse_request("") is None


def ready(decide, scale, cause=""):
    view = ComponentView("inference", ready=not cause, failing=bool(cause), message=cause)
    status = decide(Status(), seen(components=(view,), scale=scale)).status
    found = condition(status, "Ready")
    return found.status, found.reason, found.message


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (Scale(2, 2, 2, 2, "a=b"), (True, "Serving", "2 of 2 inference pods are ready")),
        # A surge pod of the next template is not ready yet.
        (Scale(2, 3, 2, 1, "a=b"), (True, "Serving", "2 of 2 inference pods are ready")),
        (Scale(2, 3, 3, 1, "a=b"), (True, "Serving", "2 of 2 inference pods are ready")),
        (Scale(0, 0, 0, 0, "a=b"), (False, "ScaledToZero", "no inference is wanted")),
    ],
)
def test_ready_while_all_that_are_wanted_are(decide, scale, expected):
    assert ready(decide, scale) == expected


def test_not_ready_says_why(decide):
    found = ready(decide, Scale(3, 3, 1, 3, "a=b"), "pod x: cannot be scheduled: no GPU")
    says = "1 of 3 inference pods are ready: pod x: cannot be scheduled: no GPU"
    assert found == (False, "InferenceNotReady", says)


def test_an_update_is_told_by_its_count(decide):
    status = decide(Status(), seen(scale=Scale(3, 4, 3, 1, "a=b"))).status
    progressing = condition(status, "Progressing")
    assert (progressing.reason, progressing.message) == (
        "InferenceUpdating",
        "1 of 3 inference pods are updated",
    )
    counts = (status.replicas, status.ready_replicas, status.updated_replicas, status.selector)
    assert counts == (4, 3, 1, "a=b")


def test_what_keeps_the_operator_from_its_part_is_told_first(decide):
    problem = Problem("NameConflict", "Service chat-inference belongs to somebody else")
    failing = ComponentView("trainer", ready=False, failing=True, message="no space")
    observed = seen(components=(*SERVING, failing), problems=(problem,))
    degraded = condition(decide(Status(), observed).status, "Degraded")
    assert degraded.reason == "NameConflict"
    assert degraded.message == f"{problem.message}; trainer: no space"


def test_what_inferences_say_of_themselves_degrades(decide):
    problem = Problem("NothingRecorded", "no trajectory has been recorded since 12:00")
    views = [InferenceView(name, "i1", STABLE, problems=(problem,)) for name in "abcde"]
    found = condition(decide(Status(), seen(*views)).status, "Degraded")
    assert (found.status, found.reason) == (True, "NothingRecorded")
    assert found.message.startswith("a: no trajectory has been recorded since 12:00; b: ")
    assert found.message.endswith("; and 2 more")
