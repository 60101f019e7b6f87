"""What is said of a rule agrees with what the rule decides."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_operator.domain.rollout.clause import (
    against_harm,
    clauses,
    deadline,
    for_promotion,
    telling,
)
from aurora_operator.domain.rollout.evidence import ArmMean, Evidence
from aurora_operator.domain.rollout.guardrail import GuardrailState
from aurora_operator.domain.rollout.replay import Replay, RequestClass
from aurora_operator.domain.rollout.state import (
    STAGING_SECONDS,
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
    is_better,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PLAN = RolloutPlan((5, 50), "0.01", 10, 300, 3600.0, "Replay", 2)
STATE = Analyzing(1, NOW, 0, Clock(NOW))

log_es = st.sampled_from([-0.5, 4.5, 4.7, 6.3, 6.5, 9.0])
effects = st.sampled_from([-0.2, 0.0, 0.0005, 0.1, 0.3])
counts = st.sampled_from([0, 1, 2, 199, 200, 299, 300, 600])


@st.composite
def replays(draw):
    classes = tuple(
        RequestClass(name, 9, (draw(log_es),) * 8) for name in draw(st.sampled_from(["", "ab"]))
    )
    return Replay(
        "9-0",
        draw(counts),
        (draw(log_es),) * 4,
        (draw(log_es),) * 8,
        stable_steps=10.0,
        saved_steps=draw(effects),
        saved_scatter=draw(st.sampled_from([0.0, 9.0])),
        classes=classes,
    )


@st.composite
def evidences(draw, method):
    guardrails = tuple(
        GuardrailState(name, 1000, 9, 0.5, draw(effects), (draw(log_es),) * 8)
        for name in draw(st.sampled_from([(), ("tpot",), ("of-a-later-version", "tpot")]))
    )
    return Evidence(
        stable=ArmMean(draw(counts), 0.5),
        candidate=ArmMean(draw(counts), 0.5),
        log_wealth=(draw(log_es),) * 8,
        log_harm_wealth=(draw(log_es),) * 8,
        effect=draw(effects),
        effect_scatter=draw(st.sampled_from([0.0, 1.0])),
        guardrails=guardrails,
        crashes=draw(st.sampled_from([0, 2, 3])),
        replay=draw(replays()) if method == "Replay" else None,
    )


@pytest.mark.parametrize("method", ["Replay", "Canary"])
def test_a_candidate_is_better_if_and_only_if_all_that_it_asks_for_holds(method):
    plan, seen = replace(PLAN, method=method), set()

    @settings(max_examples=300)
    @given(evidences(method))
    def agrees(evidence):
        said = all(clause.holds for clause in for_promotion(plan, evidence))
        assert said == is_better(evidence, plan)
        seen.add(said)

    agrees()
    assert seen == {True, False}


@pytest.mark.parametrize("method", ["Replay", "Canary"])
def test_a_rollout_ends_if_and_only_if_a_clause_against_harm_is_broken(method):
    plan, seen = replace(PLAN, method=method, min_requests=10**6), set()

    @settings(max_examples=300)
    @given(evidences(method))
    def agrees(evidence):
        after = advance(STATE, plan=plan, evidence=evidence, observed=Observed(), now=NOW)
        said = all(clause.holds for clause in against_harm(plan, evidence))
        assert said == (not isinstance(after, RolledBack | Inconclusive))
        seen.add(said)

    agrees()
    assert seen == {True, False}


def test_the_class_named_is_the_one_nearest_to_its_own_threshold():
    classes = (RequestClass("first", 9, (4.0,) * 8), RequestClass("second", 9, (4.5,) * 8))
    evidence = Evidence(replay=Replay(classes=classes))
    (found,) = [one for one in clauses(PLAN, evidence) if one.name == "NoClassHarm"]
    # α/2 and α/6: the first lacks 1.30, the second 1.90.
    assert found.subject == "first"
    assert found.required == pytest.approx(4.6052 + 0.6931, abs=1e-3)


def test_a_history_keeps_what_a_promotion_asks_for_and_the_harm_that_was_found():
    guardrails = (GuardrailState("tpot", 1000, 9, 0.5, 0.3, (9.0,) * 8),)
    found = clauses(PLAN, Evidence(replay=Replay(), guardrails=guardrails))
    assert [one.name for one in telling(found)] == [
        "Better",
        "SavesOverall",
        "MinRequests",
        "LiveNotWorse",
        "WithinMargin",
        "NoGuardrailHarm",
    ]


PAUSED = Clock(NOW, NOW + timedelta(seconds=5), 60.0)
DEADLINES = {
    "pending": (Pending(Clock(NOW)), STAGING_SECONDS),
    "begun by an earlier operator": (Pending(), None),
    "waiting, after a pause": (WaitingForTraffic(Clock(NOW, None, 60.0)), 3660),
    "analyzing": (STATE, 3600),
    "paused": (replace(STATE, clock=PAUSED), None),
    "promoting": (Promoting("x", NOW), STAGING_SECONDS),
    "promoted": (Promoted("x"), None),
}


@pytest.mark.parametrize(("state", "seconds"), DEADLINES.values(), ids=DEADLINES)
def test_every_state_that_runs_has_its_deadline(state, seconds):
    wanted = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert deadline(state, PLAN) == wanted


def test_a_state_ends_at_its_deadline():
    at = deadline(STATE, PLAN)
    terms = {"plan": PLAN, "evidence": Evidence(replay=Replay()), "observed": Observed()}
    assert advance(STATE, now=at - timedelta(seconds=1), **terms) == STATE
    assert advance(STATE, now=at, **terms) == Inconclusive("DeadlineReached")
