"""Every row of `advance`."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.rollout.evidence import ArmMean, Evidence
from aurora_operator.domain.rollout.guardrail import GuardrailState
from aurora_operator.domain.rollout.replay import Replay, RequestClass
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Inconclusive,
    Observed,
    Pending,
    Promoted,
    Promoting,
    RolledBack,
    RolloutPlan,
    WaitingForTraffic,
    advance,
    weight_percent,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(minutes=1)
PLAN = RolloutPlan(
    steps_percent=(5, 20, 50),
    alpha="0.01",
    min_effect_bps=0,
    min_requests=30,
    max_duration_seconds=3600,
)


REPLAYED = replace(PLAN, method="Replay")


def replay(requests=300, *, log_e=0.0, log_harm=-0.1, saved=0.1, scatter=0.0, classes=()):
    """Of drafts of which the stable one needs 10 verify steps a request."""
    return Replay(
        "9-0",
        requests,
        (log_e,) * 4,
        (log_harm,) * 8,
        stable_steps=10.0,
        saved_steps=saved,
        saved_scatter=scatter,
        classes=classes,
    )


def judged(live_requests=30, *, effect=0.0, spread=1.0, guardrails=(), **shown):
    """Live evidence, half of it of the candidate, beside a replay."""
    return replace(
        evidence(guardrails=guardrails),
        stable=ArmMean(live_requests - live_requests // 2, 0.5),
        candidate=ArmMean(live_requests // 2, 0.5),
        effect=effect,
        effect_scatter=spread,
        replay=replay(**shown),
    )


def evidence(requests=0, *, log_e=0.0, log_harm=-0.1, guardrails=(), crashes=0):
    return Evidence(
        crashes=crashes,
        log_wealth=(log_e,) * 8,
        log_harm_wealth=(log_harm,) * 8,
        stable=ArmMean(requests, 0.5),
        guardrails=guardrails,
    )


def guarded(*, log_harm=0.0, effect=0.0, name="tpot"):
    """One guardrail with a margin of 10%."""
    return (GuardrailState(name, 1000, 9, 0.5, effect, (log_harm,) * 8),)


def analyzing(step=0, *, entered_requests=0, paused_at=None, paused_seconds=0.0):
    return Analyzing(step, START, entered_requests, Clock(START, paused_at, paused_seconds))


def hurt(name, log_harm):
    return RequestClass(name, 9, (log_harm,) * 8)


def pending(**past):
    """Pending for so long."""
    return Pending(Clock(NOW - timedelta(**past)))


def waiting(**past):
    return WaitingForTraffic(Clock(NOW - timedelta(**past)))


SURE = math.log(100) + 1e-9
ALMOST = math.log(100) - 1e-6
NOTHING = Observed()
STAGED = Observed(staged=True, staged_somewhere=True)
OUTDONE = Observed(outdone=True)

# With Replay: recorded requests decide, live ones confirm.
REPLAY_ROWS = {
    "replay better": (
        analyzing(0),
        judged(log_e=SURE),
        NOTHING,
        Promoting("ReplayBetter", NOW),
    ),
    "live evidence alone": (analyzing(2), replace(judged(), log_wealth=(SURE,) * 8), NOTHING, None),
    "replay almost better": (analyzing(2), judged(log_e=ALMOST), NOTHING, None),
    "better on requests, not on all together": (
        analyzing(2),
        judged(log_e=SURE, saved=-0.1, scatter=900.0),
        NOTHING,
        None,
    ),
    "replay better, too few live requests": (analyzing(2), judged(29, log_e=SURE), NOTHING, None),
    "replay better, none of the live ones the candidate's": (
        analyzing(2),
        replace(judged(log_e=SURE), stable=ArmMean(30, 0.5), candidate=ArmMean()),
        NOTHING,
        None,
    ),
    "replay better, live acceptance is lower": (
        analyzing(2),
        judged(log_e=SURE, effect=-0.2, spread=0.001),
        NOTHING,
        None,
    ),
    "replay better, held back": (
        analyzing(2),
        judged(log_e=SURE, guardrails=guarded(effect=0.11)),
        NOTHING,
        None,
    ),
    "replay better while paused": (
        analyzing(2, paused_at=START),
        judged(log_e=SURE),
        Observed(paused=True),
        None,
    ),
    "replay speaks for harm": (analyzing(0), judged(10, log_harm=0.1), NOTHING, None),
    "replay speaks for no harm": (
        analyzing(0),
        judged(10, log_harm=-0.1),
        NOTHING,
        Analyzing(1, NOW, 10, Clock(START)),
    ),
    **{
        f"replay harm in {type(state).__name__}": (
            state,
            judged(log_harm=SURE),
            Observed(paused=paused),
            RolledBack("ReplayHarm: all requests"),
        )
        for state, paused in [
            (pending(), False),
            (waiting(), False),
            (analyzing(1), False),
            (analyzing(1, paused_at=START), True),
        ]
    },
    "harm in a class, with its share of alpha": (
        analyzing(2),
        judged(log_e=SURE, classes=(RequestClass("a"), hurt("b", SURE + math.log(6)))),
        NOTHING,
        RolledBack("ReplayHarm: b"),
    ),
    "almost harm in a class": (
        analyzing(2),
        judged(classes=(RequestClass("a"), hurt("b", ALMOST + math.log(6)))),
        NOTHING,
        None,
    ),
    "not comparable": (
        pending(),
        judged(),
        Observed(not_comparable="their shapes differ"),
        Inconclusive("NotComparable: their shapes differ"),
    ),
    "not comparable while paused": (
        analyzing(1, paused_at=START),
        judged(),
        Observed(not_comparable="their shapes differ", paused=True),
        None,
    ),
    "gains too little": (analyzing(2), judged(saved=-0.1), NOTHING, Inconclusive("GainTooSmall")),
    "gains too little, so far": (analyzing(2), judged(requests=199, saved=-0.1), NOTHING, None),
    "a better one waits": (
        analyzing(2),
        judged(requests=100, log_e=SURE / 2 - 1e-6),
        OUTDONE,
        Inconclusive("Superseded"),
    ),
    "a better one waits for a fair try": (analyzing(2), judged(requests=99), OUTDONE, None),
    "a better one waits for one that may prove it": (
        analyzing(2),
        judged(requests=100, log_e=SURE / 2),
        OUTDONE,
        None,
    ),
    "a better one waits for one that did": (
        analyzing(2),
        judged(log_e=SURE),
        OUTDONE,
        Promoting("ReplayBetter", NOW),
    ),
    "a better one waits while paused": (
        analyzing(2, paused_at=START),
        judged(),
        replace(OUTDONE, paused=True),
        None,
    ),
    "replay undoes no promotion": (
        Promoting("x", NOW),
        judged(log_harm=SURE),
        NOTHING,
        Promoting("x", NOW),
    ),
}

ROWS = {
    "not staged": (pending(), evidence(), NOTHING, pending()),
    "staged": (pending(minutes=1), evidence(), STAGED, waiting()),
    "begun by an earlier operator": (Pending(), evidence(), STAGED, pending()),
    "waiting since an earlier operator": (WaitingForTraffic(), evidence(9), NOTHING, waiting()),
    "staged while paused": (
        pending(minutes=1),
        evidence(),
        replace(STAGED, paused=True),
        Pending(Clock(NOW - timedelta(minutes=1), paused_at=NOW)),
    ),
    "still paused in Pending": (
        Pending(Clock(START - timedelta(days=1), paused_at=START)),
        evidence(),
        replace(STAGED, paused=True),
        Pending(Clock(START - timedelta(days=1), paused_at=START)),
    ),
    "resumed in Pending": (
        Pending(Clock(START, paused_at=START)),
        evidence(),
        STAGED,
        Pending(Clock(START, paused_seconds=60.0)),
    ),
    "staged by some, not for long": (
        pending(minutes=9),
        evidence(),
        Observed(staged_somewhere=True),
        pending(minutes=9),
    ),
    "staged by some, for long": (
        pending(minutes=10),
        evidence(),
        Observed(staged_somewhere=True),
        waiting(),
    ),
    "staged by none, for long": (
        pending(minutes=10),
        evidence(),
        NOTHING,
        Inconclusive("NotStaged"),
    ),
    "refused": (
        pending(),
        evidence(),
        Observed(refusal="NaN in lm_head"),
        RolledBack("CheckpointRefused: NaN in lm_head"),
    ),
    "no traffic yet": (waiting(minutes=59), evidence(), STAGED, waiting(minutes=59)),
    "a better one waits, without replay": (
        analyzing(2),
        evidence(300),
        OUTDONE,
        analyzing(2),
    ),
    "nothing judged for long": (
        waiting(hours=1),
        evidence(),
        STAGED,
        Inconclusive("NothingJudged"),
    ),
    "first request": (waiting(minutes=5), evidence(1), STAGED, Analyzing(0, NOW, 0, Clock(NOW))),
    "first request at the last moment": (
        waiting(hours=1),
        evidence(1),
        STAGED,
        Analyzing(0, NOW, 0, Clock(NOW)),
    ),
    "first request while paused": (
        WaitingForTraffic(Clock(START, paused_at=START)),
        evidence(1),
        Observed(paused=True),
        WaitingForTraffic(Clock(START, paused_at=START)),
    ),
    "few crashes": (waiting(), evidence(crashes=2), STAGED, waiting()),
    **{
        f"crashes in {type(state).__name__}": (
            state,
            evidence(30, log_e=SURE, crashes=3),
            Observed(staged=True, paused=paused),
            RolledBack("CrashHarm"),
        )
        for state, paused in [
            (pending(), False),
            (waiting(), False),
            (analyzing(1), False),
            (analyzing(1, paused_at=START), True),
        ]
    },
    "crashes undo no promotion": (
        Promoting("x", NOW),
        evidence(crashes=9),
        NOTHING,
        Promoting("x", NOW),
    ),
    "step filled, but worse so far": (
        analyzing(0),
        evidence(10, log_harm=0.0),
        NOTHING,
        analyzing(0),
    ),
    "step not filled": (analyzing(0), evidence(9), NOTHING, analyzing(0)),
    "step filled": (
        analyzing(0),
        evidence(10),
        NOTHING,
        Analyzing(1, NOW, 10, Clock(START)),
    ),
    "step counts from its entry": (
        analyzing(1, entered_requests=10),
        evidence(19),
        NOTHING,
        analyzing(1, entered_requests=10),
    ),
    "last step stays": (analyzing(2), evidence(1000), NOTHING, analyzing(2)),
    "better": (analyzing(0), evidence(30, log_e=SURE), NOTHING, Promoting("AcceptanceBetter", NOW)),
    "better at the last step": (
        analyzing(2),
        evidence(30, log_e=SURE),
        NOTHING,
        Promoting("AcceptanceBetter", NOW),
    ),
    "better but too few requests": (
        analyzing(2),
        evidence(29, log_e=SURE),
        NOTHING,
        analyzing(2),
    ),
    "almost better": (analyzing(2), evidence(300, log_e=ALMOST), NOTHING, analyzing(2)),
    "better while paused": (
        replace(analyzing(2), clock=Clock(START, paused_at=START)),
        evidence(30, log_e=SURE),
        Observed(paused=True),
        replace(analyzing(2), clock=Clock(START, paused_at=START)),
    ),
    "harm": (analyzing(0), evidence(3, log_harm=SURE), NOTHING, RolledBack("AcceptanceHarm")),
    "almost harm": (analyzing(2), evidence(3, log_harm=ALMOST), NOTHING, analyzing(2)),
    "harm while paused": (
        analyzing(0),
        evidence(3, log_harm=SURE),
        Observed(paused=True),
        RolledBack("AcceptanceHarm"),
    ),
    "guardrail harm": (
        analyzing(0),
        evidence(30, log_e=SURE, guardrails=guarded(log_harm=SURE)),
        NOTHING,
        RolledBack("TimePerOutputTokenHarm"),
    ),
    "guardrail harm while paused": (
        analyzing(0, paused_at=START),
        evidence(30, guardrails=guarded(log_harm=SURE)),
        Observed(paused=True),
        RolledBack("TimePerOutputTokenHarm"),
    ),
    "almost guardrail harm": (
        analyzing(2),
        evidence(30, guardrails=guarded(log_harm=ALMOST)),
        NOTHING,
        analyzing(2),
    ),
    "harm of a guardrail that is not known": (
        analyzing(2),
        evidence(30, guardrails=guarded(log_harm=SURE, name="retired")),
        NOTHING,
        analyzing(2),
    ),
    "better but held back": (
        analyzing(2),
        evidence(30, log_e=SURE, guardrails=guarded(effect=0.11)),
        NOTHING,
        analyzing(2),
    ),
    "better, and worse by no more than the margin": (
        analyzing(2),
        evidence(30, log_e=SURE, guardrails=guarded(effect=0.1)),
        NOTHING,
        Promoting("AcceptanceBetter", NOW),
    ),
    "held back until the deadline": (
        replace(analyzing(2), clock=Clock(NOW - timedelta(hours=1))),
        evidence(30, log_e=SURE, guardrails=guarded(effect=0.11)),
        NOTHING,
        Inconclusive("DeadlineReached"),
    ),
    "promoting what is held back": (
        analyzing(2),
        evidence(30, guardrails=guarded(effect=0.11)),
        Observed(command="promote"),
        Promoting("Commanded", NOW),
    ),
    "pausing stops the clock": (
        analyzing(1),
        evidence(),
        Observed(paused=True),
        analyzing(1, paused_at=NOW),
    ),
    "still paused": (
        analyzing(1, paused_at=START),
        evidence(),
        Observed(paused=True),
        analyzing(1, paused_at=START),
    ),
    "resuming starts the clock": (
        analyzing(1, paused_at=START),
        evidence(),
        NOTHING,
        analyzing(1, paused_seconds=60.0),
    ),
    "abort": (
        analyzing(1),
        evidence(30, log_e=SURE),
        Observed(command="abort"),
        RolledBack("Aborted"),
    ),
    "abort while pending": (
        pending(),
        evidence(),
        Observed(command="abort"),
        RolledBack("Aborted"),
    ),
    "abort while paused": (
        analyzing(1, paused_at=START),
        evidence(),
        Observed(command="abort", paused=True),
        RolledBack("Aborted"),
    ),
    "promote": (
        waiting(),
        evidence(),
        Observed(command="promote"),
        Promoting("Commanded", NOW),
    ),
    "promote what is refused": (
        pending(),
        evidence(),
        Observed(command="promote", refusal="gone"),
        RolledBack("CheckpointRefused: gone"),
    ),
    "promoting": (Promoting("x", NOW), evidence(), NOTHING, Promoting("x", NOW)),
    "promoting since an earlier operator": (
        Promoting("x"),
        evidence(),
        NOTHING,
        Promoting("x", NOW),
    ),
    "promoting where one does not": (
        Promoting("x", NOW - timedelta(minutes=9)),
        evidence(),
        Observed(unpromoted=("b",)),
        Promoting("x", NOW - timedelta(minutes=9)),
    ),
    "promoting where one does not, for long": (
        Promoting("x", NOW - timedelta(minutes=10)),
        evidence(),
        Observed(unpromoted=("b",)),
        Promoted("x; not yet on b"),
    ),
    "promoting where many do not, for long": (
        Promoting("x", NOW - timedelta(minutes=10)),
        evidence(),
        Observed(unpromoted=("a", "b", "c", "d", "e")),
        Promoted("x; not yet on a, b, c and 2 more"),
    ),
    "promoting where nothing serves, for long": (
        Promoting("x", NOW - timedelta(minutes=10)),
        evidence(),
        NOTHING,
        Promoted("x; not yet on any inference"),
    ),
    "promoting cannot be aborted": (
        Promoting("x", NOW),
        evidence(),
        Observed(command="abort"),
        Promoting("x", NOW),
    ),
    "promoting goes on while paused": (
        Promoting("x", NOW),
        evidence(),
        Observed(promoted=True, paused=True),
        Promoted("x"),
    ),
    "promoting what turns out refused": (
        Promoting("x", NOW),
        evidence(),
        Observed(refusal="gone"),
        RolledBack("CheckpointRefused: gone"),
    ),
    "promoted": (Promoting("x", NOW), evidence(), Observed(promoted=True), Promoted("x")),
    **{
        f"{type(ended).__name__} stays": (
            ended,
            evidence(300, log_e=SURE, log_harm=SURE),
            Observed(staged=True, promoted=True, refusal="x", command="promote"),
            ended,
        )
        for ended in (Promoted("x"), RolledBack("x"), Inconclusive("x"))
    },
}


@pytest.mark.parametrize(("state", "known", "observed", "expected"), ROWS.values(), ids=ROWS.keys())
def test_advance(state, known, observed, expected):
    assert advance(state, plan=PLAN, evidence=known, observed=observed, now=NOW) == expected


@pytest.mark.parametrize(
    ("state", "known", "observed", "expected"), REPLAY_ROWS.values(), ids=REPLAY_ROWS.keys()
)
def test_advance_with_replay(state, known, observed, expected):
    """`expected` None: the state stays."""
    found = advance(state, plan=REPLAYED, evidence=known, observed=observed, now=NOW)
    assert found == (state if expected is None else expected)


def test_the_deadline():
    def after(state, **elapsed):
        now = START + timedelta(**elapsed)
        return advance(state, plan=PLAN, evidence=evidence(40), observed=NOTHING, now=now)

    last = analyzing(2)
    assert after(last, minutes=59, seconds=59) == last
    assert after(last, hours=1) == Inconclusive("DeadlineReached")
    paused = analyzing(2, paused_seconds=600.0)
    assert after(paused, minutes=69) == paused
    assert after(paused, minutes=70) == Inconclusive("DeadlineReached")


def test_a_pause_longer_than_the_deadline_costs_no_time():
    state = advance(
        analyzing(2), plan=PLAN, evidence=evidence(), observed=Observed(paused=True), now=NOW
    )
    much_later = NOW + timedelta(days=3)
    state = advance(state, plan=PLAN, evidence=evidence(), observed=NOTHING, now=much_later)
    assert state.clock.elapsed(much_later) == timedelta(minutes=1)


def test_evidence_at_the_deadline_still_promotes():
    state = advance(
        analyzing(2),
        plan=PLAN,
        evidence=evidence(30, log_e=SURE),
        observed=NOTHING,
        now=START + timedelta(days=1),
    )
    assert state == Promoting("AcceptanceBetter", START + timedelta(days=1))


@pytest.mark.parametrize(
    ("state", "weight"),
    [
        (Pending(), 5),
        (WaitingForTraffic(), 5),
        (analyzing(1), 20),
        (Promoting("x"), None),
        (Promoted("x"), 0),
        (RolledBack("x"), 0),
        (Inconclusive("x"), 0),
    ],
)
def test_weight(state, weight):
    assert weight_percent(state, PLAN) == weight


@pytest.mark.parametrize(
    "state", [Pending(), WaitingForTraffic(), analyzing(0), analyzing(2), Promoting("x")]
)
def test_no_state_without_an_end(state):
    """With nothing ever staged, judged or promoted, whatever the state."""
    now = NOW
    for _ in range(20):
        now += timedelta(hours=2)
        state = advance(state, plan=PLAN, evidence=evidence(), observed=NOTHING, now=now)
    assert isinstance(state, Promoted | Inconclusive)
