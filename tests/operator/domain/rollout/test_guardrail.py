"""A guardrail rolls back harm, seldom anything else, and is a row of a table."""

import json
import math
import random
import statistics
from dataclasses import replace
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_operator.domain.crd import definition
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.observation import Observation, OutcomeBatch
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.rollout.evidence import Evidence, observe
from aurora_operator.domain.rollout.guardrail import (
    GUARDRAILS,
    Guardrail,
    GuardrailState,
    guardrail_state,
    time_per_output_token,
)
from aurora_operator.domain.rollout.outcome import Block, Ending, Outcome, Pair
from aurora_operator.domain.rollout.state import Analyzing, Clock, RolledBack
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

START = datetime(2026, 1, 1, tzinfo=UTC)
PAIR = Outcome("stable", 5000, 0, 0, stable_digest="sha256:a", candidate_digest="sha256:b")


def served(arm, time, *, bps=2000, failed=False):
    return Outcome(arm, bps, 10, 5, "failed" if failed else "completed", time)


def after(outcomes, margin_bps=1000):
    state = GuardrailState("tpot", margin_bps)
    for outcome in outcomes:
        state = state.observe(outcome)
    return state


def traffic(draw, requests, *, slowdown=1.0, bps=2000):
    """Log-normal times (σ = 0.5) around 20 ms, the candidate's longer by a factor."""
    for _ in range(requests):
        arm = "candidate" if draw.random() < bps / 10_000 else "stable"
        time = 20_000 * draw.lognormvariate(0, 0.5) * (slowdown if arm == "candidate" else 1.0)
        yield served(arm, round(time), bps=bps)


def requests_until_harm(draw, *, at_most, slowdown, bps, alpha):
    state = GuardrailState("tpot", 1000)
    for count, outcome in enumerate(traffic(draw, at_most, slowdown=slowdown, bps=bps)):
        state = state.observe(outcome)
        if state.log_harm >= -math.log(alpha):
            return count + 1
    return math.inf


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), max_size=60))
def test_a_score_is_bounded_and_its_scale_is_set_by_earlier_requests(requests):
    memory = ()
    for time, failed in requests:
        before = memory
        score, memory = time_per_output_token(served("stable", time, failed=failed), memory)
        if failed or time == 0:
            assert (score, memory) == (None, before)
        elif not before:
            assert (score, memory) == (None, (time, 1))
        else:
            assert score == min(time / (2 * before[0]), 1)
            assert 0 <= memory[0] <= 2 * before[0]


def test_one_outlier_does_not_move_the_scale():
    state = after(served("stable", 20_000) for _ in range(100))
    assert after([*[served("stable", 20_000)] * 100, served("stable", 10**9)]).memory[0] < 20_300
    assert state.memory == (20_000, 100)


@pytest.mark.parametrize(
    "outcome",
    [served("candidate", 0), served("candidate", 90_000, failed=True), served("stable", 0)],
)
def test_a_request_without_a_time_says_nothing(outcome):
    state = after(traffic(random.Random(1), 50))
    assert state.observe(outcome) == state


def test_each_time_has_a_guardrail_of_its_own():
    quick = Outcome("candidate", 5000, 10, 5, time_per_output_token_us=20_000)
    late = replace(quick, time_to_first_token_us=900_000)
    states = {name: guardrail_state(name, 0) for name in ("tpot", "ttft")}
    assert states["ttft"].observe(quick) == states["ttft"]
    assert states["ttft"].observe(late).memory == (900_000, 1)
    assert states["tpot"].observe(late).memory == (20_000, 1)


def test_a_block_has_the_mean_time_to_its_first_tokens():
    stable, candidate = Block(9, 0, 90, 60, 20_000, 100_000), Block(9, 0, 90, 60, 20_000, 150_000)
    states = {name: guardrail_state(name, 1000) for name in ("tpot", "ttft")}
    for _ in range(200):
        states = {name: each.observe_pair(Pair(stable, candidate)) for name, each in states.items()}
    assert states["tpot"].log_harm < 0 <= math.log(100) < states["ttft"].log_harm
    assert states["ttft"].effect_bps > 2000 > states["tpot"].effect_bps


def test_a_cancelled_request_is_timed_by_what_it_was_served():
    state = after(traffic(random.Random(1), 50))
    cancelled = replace(served("candidate", 30_000), ending="cancelled")
    assert state.observe(cancelled) == state.observe(served("candidate", 30_000))


def test_the_first_request_only_sets_the_scale():
    state = after([served("candidate", 20_000)])
    assert (state.requests, state.log_harm, state.memory) == (0, 0, (20_000, 1))


@given(
    st.lists(
        st.builds(
            Outcome,
            arm=st.sampled_from(["stable", "candidate"]),
            candidate_bps=st.integers(0, 10_000),
            drafted_tokens=st.just(4),
            accepted_tokens=st.just(2),
            ending=st.sampled_from(get_args(Ending)),
            time_per_output_token_us=st.integers(0, 2**32 - 1),
        ),
        max_size=60,
    ),
    st.integers(0, 10_000),
)
def test_wealth_stays_finite(outcomes, margin_bps):
    state = after(outcomes, margin_bps)
    assert math.isfinite(state.log_harm)
    assert math.isfinite(state.effect)
    assert 0 <= state.mean_score <= 1


def test_equal_drafts_are_rarely_rolled_back():
    """With no margin at all, which makes equality the edge of the hypothesis."""
    runs, harmed, alpha = 300, 0, 0.05
    draw = random.Random(7)
    for _ in range(runs):
        state = GuardrailState("tpot", 0)
        worst = 0.0
        for outcome in traffic(draw, 250, bps=draw.choice((500, 2000, 5000))):
            state = state.observe(outcome)
            worst = max(worst, state.log_harm)
        harmed += worst >= -math.log(alpha)
    assert harmed / runs <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize(("bps", "at_most"), [(1000, 700), (2000, 400), (5000, 300)])
def test_a_slow_candidate_is_rolled_back_within_some_hundred_requests(bps, at_most):
    draw = random.Random(bps)
    counts = [
        requests_until_harm(draw, at_most=2000, slowdown=1.5, bps=bps, alpha=0.01)
        for _ in range(15)
    ]
    assert statistics.median(counts) <= at_most


def test_a_draft_of_equal_speed_is_not_held_back_for_long():
    draw = random.Random(3)
    held = [after(traffic(draw, 600)).holds_back for _ in range(100)]
    assert statistics.mean(held) <= 0.12


def test_a_draft_slower_than_the_margin_is_held_back():
    draw = random.Random(4)
    held = [after(traffic(draw, 600, slowdown=1.3)).holds_back for _ in range(40)]
    assert statistics.mean(held) >= 0.9


def test_a_restart_changes_nothing():
    outcomes = list(traffic(random.Random(5), 200))
    evidence = Evidence(guardrails=(guardrail_state("tpot", None),))
    for outcome in outcomes:
        evidence = observe(evidence, outcome)
    assert evidence.guardrails == (after(outcomes),)


def test_a_request_that_drafted_nothing_is_timed_all_the_same():
    evidence = Evidence(guardrails=(GuardrailState("tpot", 1000, memory=(20_000.0, 1.0)),))
    evidence = observe(evidence, Outcome("candidate", 2000, 0, 0, "completed", 20_000))
    assert (evidence.requests, evidence.guardrails[0].requests) == (0, 1)


@pytest.fixture
def waste(monkeypatch):
    """Another guardrail, which nothing but the table knows."""
    guardrail = Guardrail(
        meaning="drafted tokens",
        harm="WasteHarm",
        margin_bps=10,
        unit=1.0,
        score=lambda outcome, memory: (min(outcome.drafted_tokens / 100, 1.0), memory),
    )
    monkeypatch.setitem(GUARDRAILS, "waste", guardrail)


def manifest(**rollout):
    return json.dumps(
        {
            "apiVersion": "aurora.dev/v1alpha1",
            "kind": "AuroraDeployment",
            "metadata": {"name": "chat"},
            "spec": {
                "target": {"uri": "file:///models/target"},
                "buffer": {"embedded": {}},
                "modelStore": {"pvc": {"claimName": "models"}},
                "rollout": rollout,
            },
        }
    )


@pytest.mark.usefixtures("waste")
def test_another_guardrail_is_another_row_of_the_table():
    version = definition()["spec"]["versions"][0]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    schema = spec["rollout"]["properties"]["guardrails"]
    assert schema["items"]["properties"]["name"]["enum"] == [*GUARDRAILS]
    assert schema["default"][-1] == {"name": "waste", "marginBps": 10}

    deployment = parse_manifest(manifest(guardrails=[{"name": "waste"}]), "test")
    waiting = Candidate(Draft("b", "sha256:b", "file:///b"), 1)
    status = Status(stable=Draft("a", "sha256:a", "file:///a"), queue=Queue(1, waiting))
    status = plan(deployment, status, Observation(expected=frozenset({"a"})), START).status
    assert status.rollout.evidence.guardrails == (GuardrailState("waste", 10),)

    analyzing = Analyzing(0, START, 0, Clock(START))
    status = replace(status, rollout=replace(status.rollout, state=analyzing))
    outcomes = [
        (number, replace(PAIR, arm=arm, drafted_tokens=drafted, accepted_tokens=drafted // 2))
        for number, (arm, drafted) in enumerate([("candidate", 90), ("stable", 10)] * 30, start=1)
    ]
    batch = OutcomeBatch("inference", "i", "chat-1", tuple(outcomes))
    status = plan(deployment, status, Observation(batches=(batch,)), START).status
    assert status.rollout.state == RolledBack("WasteHarm")
    assert status_from_json(status_to_json(status)) == status


def test_every_guardrail_is_on_by_default_and_an_empty_list_turns_them_off():
    default = parse_manifest(manifest(), "test").spec.rollout.guardrails
    assert [(one.name, one.margin_bps) for one in default] == [
        (name, guardrail.margin_bps) for name, guardrail in GUARDRAILS.items()
    ]
    assert parse_manifest(manifest(guardrails=[]), "test").spec.rollout.guardrails == ()
