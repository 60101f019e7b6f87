"""Every row of `advance_dry`."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.rollout.clause import clauses, deadline
from aurora_operator.domain.rollout.dry_run import advance_dry
from aurora_operator.domain.rollout.evidence import Evidence
from aurora_operator.domain.rollout.replay import Replay, RequestClass
from aurora_operator.domain.rollout.state import (
    Clock,
    Inconclusive,
    Observed,
    Replaying,
    RolloutPlan,
    WouldPromote,
    WouldRollBack,
    advance,
    weight_percent,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(minutes=1)
PLAN = RolloutPlan((5, 50), "0.01", 0, 300, 3600.0, "Replay", 1, dry_run=True)
SURE = math.log(200) + 1e-9
STATE = Replaying(Clock(START))
PAUSED = Replaying(Clock(START, START))


def replay(requests=300, *, log_e=0.0, log_harm=-0.1, saved=0.1, scatter=0.0, hurt=None):
    classes = () if hurt is None else (RequestClass("domain a", 9, (hurt,) * 8),)
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


ROWS = {
    "nothing yet": (STATE, replay(0), Observed(), STATE),
    "better, and no live request was judged": (
        STATE,
        replay(log_e=SURE),
        Observed(),
        WouldPromote("ReplayBetter"),
    ),
    "almost better": (STATE, replay(log_e=SURE - 1e-6), Observed(), STATE),
    "better on requests, not on all together": (
        STATE,
        replay(100, log_e=SURE, saved=-0.1, scatter=900.0),
        Observed(),
        STATE,
    ),
    "harm": (STATE, replay(log_harm=SURE), Observed(), WouldRollBack("ReplayHarm: all requests")),
    "harm to a class, though better": (
        STATE,
        replay(log_e=SURE, hurt=SURE),
        Observed(),
        WouldRollBack("ReplayHarm: domain a"),
    ),
    "harm while paused": (
        PAUSED,
        replay(log_harm=SURE),
        Observed(paused=True),
        WouldRollBack("ReplayHarm: all requests"),
    ),
    "better while paused": (PAUSED, replay(log_e=SURE), Observed(paused=True), PAUSED),
    "pause": (STATE, replay(), Observed(paused=True), Replaying(Clock(START, NOW))),
    "resume": (PAUSED, replay(), Observed(), Replaying(Clock(START, None, 60.0))),
    "abort": (STATE, replay(log_e=SURE), Observed(command="abort"), Inconclusive("Aborted")),
    "not comparable": (
        STATE,
        replay(),
        Observed(not_comparable="shapes"),
        Inconclusive("NotComparable: shapes"),
    ),
    "futile": (STATE, replay(200, saved=-0.1), Observed(), Inconclusive("GainTooSmall")),
}


@pytest.mark.parametrize(("state", "shown", "observed", "after"), ROWS.values(), ids=ROWS)
def test_advance_dry(state, shown, observed, after):
    assert advance_dry(state, plan=PLAN, replay=shown, observed=observed, now=NOW) == after


@pytest.mark.parametrize(("requests", "reason"), [(0, "NothingJudged"), (9, "DeadlineReached")])
def test_it_ends_at_its_deadline(requests, reason):
    at = deadline(STATE, PLAN)
    assert at == START + timedelta(hours=1)
    terms = {"plan": PLAN, "replay": replay(requests), "observed": Observed()}
    assert advance_dry(STATE, now=at - timedelta(seconds=1), **terms) == STATE
    assert advance_dry(STATE, now=at, **terms) == Inconclusive(reason)


@pytest.mark.parametrize("state", [STATE, WouldPromote("x"), WouldRollBack("x")])
def test_a_dry_run_has_no_traffic(state):
    assert weight_percent(state, PLAN) == 0


@pytest.mark.parametrize("state", [WouldPromote("x"), WouldRollBack("x")])
def test_its_verdicts_are_final(state):
    evidence = Evidence(crashes=9, replay=replay(log_harm=9.0))
    terms = {"plan": PLAN, "evidence": evidence, "observed": Observed(command="abort")}
    assert advance(state, now=NOW, **terms) == state


def test_only_what_replay_says_is_asked_of_it():
    evidence = Evidence(replay=replay(log_e=SURE, hurt=0.0))
    assert [(one.name, one.holds) for one in clauses(PLAN, evidence)] == [
        ("Better", True),
        ("SavesOverall", True),
        ("NoReplayHarm", True),
        ("NoClassHarm", True),
        ("GainPossible", True),
    ]
    live = clauses(replace(PLAN, dry_run=False), evidence)
    assert "MinRequests" in [one.name for one in live]
