"""Statuses in which every field is set, one for each state of a rollout."""

from dataclasses import replace
from datetime import UTC, datetime

from aurora_operator.domain.rollout.clause import clauses
from aurora_operator.domain.rollout.evidence import Evidence, observe
from aurora_operator.domain.rollout.guardrail import GuardrailState
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Inconclusive,
    Pending,
    Promoted,
    Promoting,
    Replaying,
    RolledBack,
    RolloutPlan,
    WaitingForTraffic,
    WouldPromote,
    WouldRollBack,
)
from aurora_operator.domain.status.deployment import (
    Candidate,
    Condition,
    Cursor,
    Draft,
    LastCommand,
    Queue,
    Retained,
    Rollout,
    Status,
    Verdict,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
PLAN = RolloutPlan((5, 20), "0.01", 10, 300, 21_600.0)


def full_status(state):
    evidence = Evidence(guardrails=(GuardrailState("tpot", 1000),), crashes=2)
    for accepted in (1, 7, 3):
        evidence = observe(
            evidence, Outcome("candidate", 3333, 7, accepted, time_per_output_token_us=900)
        )
        evidence = observe(evidence, Outcome("stable", 3333, 7, 2))
    draft = Draft("ckpt-1", "sha256:1", "file:///a")
    candidate = Candidate(draft, 1, "5-0", 8125)
    return Status(
        observed_generation=3,
        stable=Draft("ckpt-0", "sha256:0", "file:///b"),
        stable_acceptance_bps=6120,
        rollout=Rollout(
            "chat-1",
            candidate,
            PLAN,
            state,
            True,
            evidence,
            {"inference": Cursor("i", 9, 2, 1)},
            NOW,
        ),
        queue=Queue(4, candidate, ("sha256:2",)),
        retained=(Retained(Draft("ckpt-3", "sha256:3", "file:///c"), 15),),
        device="cuda:0 (NVIDIA H200)",
        paused=True,
        history=(_verdict(evidence),),
        conditions=(Condition("Ready", True, "Serving", "", NOW, 3),),
        last_command=LastCommand("abort/chat-1", "Refused", "too late", NOW),
        replicas=3,
        ready_replicas=2,
        updated_replicas=1,
        selector="a=1,b=2",
    )


def _verdict(evidence):
    verdict = Verdict("chat-0", "ckpt-0", "sha256:0", "Promoted", "x", -3, 12, NOW)
    return replace(
        verdict,
        saved_bps=4,
        replayed=9,
        started_at=NOW,
        saved_ci_bps=(-3, 11),
        effect_ci_bps=(-30, 24),
        clauses=clauses(replace(PLAN, method="Replay"), replace(evidence, replay=Replay())),
    )


STATES = (
    Pending(Clock(NOW)),
    WaitingForTraffic(Clock(NOW, NOW, 0.1)),
    Analyzing(1, NOW, 12, Clock(NOW, NOW, 0.1)),
    Analyzing(0, NOW, 0, Clock(NOW)),
    Promoting("x", NOW),
    Promoted("x"),
    RolledBack("x"),
    Inconclusive("x"),
)
DRY_STATES = (Replaying(Clock(NOW, NOW, 0.1)), WouldPromote("x"), WouldRollBack("x"))
STATUSES = (Status(), *(full_status(state) for state in STATES))
