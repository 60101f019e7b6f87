"""The status to JSON and back, exactly: what is read is what was written."""

from __future__ import annotations

from dataclasses import asdict

from aurora_operator.domain.rollout.evidence import ArmMean, Evidence, effect_interval
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Clock,
    Inconclusive,
    Pending,
    Promoted,
    Promoting,
    RolledBack,
    RolloutPlan,
    State,
    WaitingForTraffic,
)
from aurora_operator.domain.status.deployment import (
    Candidate,
    Condition,
    Cursor,
    Draft,
    LastCommand,
    Queue,
    Rollout,
    Status,
    Verdict,
)
from aurora_operator.domain.status.status_schema import (
    ArmJson,
    CandidateJson,
    ClockJson,
    ConditionJson,
    CursorJson,
    EvidenceJson,
    LastCommandJson,
    PlanJson,
    QueueJson,
    RolloutJson,
    StableJson,
    StateName,
    StatusJson,
    VerdictJson,
)


def status_to_json(status: Status) -> str:
    """The status, indented; absent values are left out."""
    stable = status.stable
    content = StatusJson(
        observed_generation=status.observed_generation,
        stable=stable and StableJson(**_draft(stable), acceptance_bps=status.stable_acceptance_bps),
        rollout=status.rollout and _rollout(status.rollout),
        queue=QueueJson(
            sequence=status.queue.sequence,
            waiting=status.queue.waiting and _candidate(status.queue.waiting),
            superseded=status.queue.superseded,
        ),
        paused=status.paused,
        history=tuple(VerdictJson(**asdict(verdict)) for verdict in status.history),
        conditions=tuple(
            ConditionJson(
                **{**asdict(condition), "status": "True" if condition.status else "False"}
            )
            for condition in status.conditions
        ),
        last_command=status.last_command and LastCommandJson(**asdict(status.last_command)),
        replicas=status.replicas,
        ready_replicas=status.ready_replicas,
        updated_replicas=status.updated_replicas,
        selector=status.selector,
    )
    return content.model_dump_json(by_alias=True, exclude_none=True, indent=2)


def status_from_json(text: str | bytes) -> Status:
    """The status that `status_to_json` wrote, exactly; ValueError for anything else."""
    content = StatusJson.model_validate_json(text)
    stable, waiting, command = content.stable, content.queue.waiting, content.last_command
    return Status(
        observed_generation=content.observed_generation,
        stable=None if stable is None else Draft(stable.checkpoint, stable.digest, stable.uri),
        stable_acceptance_bps=stable.acceptance_bps if stable else None,
        rollout=None if content.rollout is None else _to_rollout(content.rollout),
        queue=Queue(
            sequence=content.queue.sequence,
            waiting=None if waiting is None else _to_candidate(waiting),
            superseded=content.queue.superseded,
        ),
        paused=content.paused,
        history=tuple(Verdict(**verdict.model_dump()) for verdict in content.history),
        conditions=tuple(
            Condition(**{**condition.model_dump(), "status": condition.status == "True"})
            for condition in content.conditions
        ),
        last_command=None if command is None else LastCommand(**command.model_dump()),
        replicas=content.replicas,
        ready_replicas=content.ready_replicas,
        updated_replicas=content.updated_replicas,
        selector=content.selector,
    )


def _draft(draft: Draft) -> dict[str, str]:
    return {"checkpoint": draft.checkpoint, "digest": draft.digest, "uri": draft.uri}


def _candidate(candidate: Candidate) -> CandidateJson:
    return CandidateJson(
        checkpoint=candidate.draft.checkpoint,
        digest=candidate.draft.digest,
        uri=candidate.draft.uri,
        sequence=candidate.sequence,
        trained_through=candidate.trained_through,
    )


def _to_candidate(content: CandidateJson) -> Candidate:
    draft = Draft(content.checkpoint, content.digest, content.uri)
    return Candidate(draft, content.sequence, content.trained_through)


def _rollout(rollout: Rollout) -> RolloutJson:
    plan, state = rollout.plan, rollout.state
    analyzing = state if isinstance(state, Analyzing) else None
    clock = analyzing and analyzing.clock
    return RolloutJson(
        id=rollout.id,
        candidate=_candidate(rollout.candidate),
        state=_state_name(state),
        reason=(
            state.reason
            if isinstance(state, Promoting | Promoted | RolledBack | Inconclusive)
            else None
        ),
        step=analyzing.step if analyzing else None,
        step_entered_at=analyzing.entered_at if analyzing else None,
        step_entered_requests=analyzing.entered_requests if analyzing else None,
        clock=clock
        and ClockJson(
            started_at=clock.started_at,
            paused_at=clock.paused_at,
            paused_seconds=clock.paused_seconds,
        ),
        without_stable=rollout.without_stable,
        plan=PlanJson(
            steps_percent=plan.steps_percent,
            alpha=plan.alpha,
            min_effect_bps=plan.min_effect_bps,
            min_requests=plan.min_requests,
            max_duration_seconds=plan.max_duration_seconds,
        ),
        evidence=_evidence(rollout),
    )


def _state_name(state: State) -> StateName:
    match state:
        case Pending():
            return "Pending"
        case WaitingForTraffic():
            return "WaitingForTraffic"
        case Analyzing():
            return "Analyzing"
        case Promoting():
            return "Promoting"
        case Promoted():
            return "Promoted"
        case RolledBack():
            return "RolledBack"
        case Inconclusive():
            return "Inconclusive"


def _evidence(rollout: Rollout) -> EvidenceJson:
    evidence = rollout.evidence
    interval = effect_interval(evidence)
    return EvidenceJson(
        requests=evidence.requests,
        log_e=round(evidence.log_e, 4),
        log_harm=round(evidence.log_harm, 4),
        threshold=round(rollout.plan.threshold, 4),
        effect_bps=evidence.effect_bps,
        ci_bps=interval and (round(interval[0] * 10_000), round(interval[1] * 10_000)),
        stable=ArmJson(requests=evidence.stable.requests, acceptance=evidence.stable.acceptance),
        candidate=ArmJson(
            requests=evidence.candidate.requests, acceptance=evidence.candidate.acceptance
        ),
        log_wealth=evidence.log_wealth,
        log_harm_wealth=evidence.log_harm_wealth,
        effect=evidence.effect,
        effect_scatter=evidence.effect_scatter,
        cursors=tuple(
            CursorJson(inference=name, instance=cursor.instance, after=cursor.after)
            for name, cursor in sorted(rollout.cursors.items())
        ),
    )


def _to_rollout(content: RolloutJson) -> Rollout:
    evidence = content.evidence
    return Rollout(
        id=content.id,
        candidate=_to_candidate(content.candidate),
        plan=RolloutPlan(**content.plan.model_dump()),
        state=_to_state(content),
        without_stable=content.without_stable,
        evidence=Evidence(
            log_wealth=evidence.log_wealth,
            log_harm_wealth=evidence.log_harm_wealth,
            stable=ArmMean(evidence.stable.requests, evidence.stable.acceptance),
            candidate=ArmMean(evidence.candidate.requests, evidence.candidate.acceptance),
            effect=evidence.effect,
            effect_scatter=evidence.effect_scatter,
        ),
        cursors={
            cursor.inference: Cursor(cursor.instance, cursor.after) for cursor in evidence.cursors
        },
    )


def _to_state(content: RolloutJson) -> State:
    reason = content.reason or ""
    match content.state:
        case "Pending":
            return Pending()
        case "WaitingForTraffic":
            return WaitingForTraffic()
        case "Promoting":
            return Promoting(reason)
        case "Promoted":
            return Promoted(reason)
        case "RolledBack":
            return RolledBack(reason)
        case "Inconclusive":
            return Inconclusive(reason)
        case "Analyzing":
            pass
    if (
        content.step is None
        or content.step_entered_at is None
        or content.step_entered_requests is None
        or content.clock is None
    ):
        raise ValueError(f"rollout {content.id} is Analyzing without a step and a clock")
    clock = content.clock
    return Analyzing(
        step=content.step,
        entered_at=content.step_entered_at,
        entered_requests=content.step_entered_requests,
        clock=Clock(clock.started_at, clock.paused_at, clock.paused_seconds),
    )
