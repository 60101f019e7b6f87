"""What to do next for a deployment's draft: `plan` compares the observation with the status.

A new decision (the stable draft, the rollout's state) and actions never come together: the shell
persists the decision, and the next plan acts on what was persisted, so `Promoting` is stored before
the first promotion. Actions are idempotent; a crash anywhere costs one more reconcile.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from aurora_common.errors import AuroraError
from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan import watch
from aurora_operator.domain.plan.action import Action, due_actions, is_draft, share_bps
from aurora_operator.domain.plan.candidate_queue import dequeue, enqueue
from aurora_operator.domain.plan.command import Command, checked
from aurora_operator.domain.plan.condition import conditions
from aurora_operator.domain.plan.observation import Observation, TrainerView
from aurora_operator.domain.plan.portfolio import retained
from aurora_operator.domain.plan.restoration import restored
from aurora_operator.domain.plan.tally import tallied
from aurora_operator.domain.plan.unsent import with_unsent
from aurora_operator.domain.plan.verdict import verdict_of
from aurora_operator.domain.rollout.dry_run import advance_dry
from aurora_operator.domain.rollout.evidence import Evidence
from aurora_operator.domain.rollout.guardrail import guardrail_state
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.rollout.state import (
    Clock,
    Ended,
    Observed,
    Pending,
    Promoted,
    Replaying,
    RolloutPlan,
    State,
    advance,
)
from aurora_operator.domain.status.deployment import (
    Candidate,
    Draft,
    LastCommand,
    Rollout,
    Status,
    Training,
)

# By how much held-out acceptance must prefer the candidate that waits.
_OUTDONE_BPS = 200


@dataclass(frozen=True, slots=True)
class Decision:
    """Persist `status` first if it changed, then apply `actions` in order."""

    status: Status
    actions: tuple[Action, ...]


def plan(
    deployment: AuroraDeployment, status: Status, observed: Observation, now: datetime
) -> Decision:
    """The next status, or the actions that the current one still needs."""
    after = replace(status, observed_generation=observed.generation)
    after, command = _ordered(deployment, after, observed.command, now)
    paused = _paused(after, command)
    observed = replace(observed, command=command)
    after = restored(deployment, replace(after, paused=paused), observed)
    after = _with_stable(after, observed)
    after = _with_queue(after, observed)
    after = _with_trainer(deployment, after, observed.trainer, now)
    is_paused = paused or deployment.spec.rollout.paused or deployment.spec.suspend
    after = watch.watched(after, observed, now, suspended=deployment.spec.suspend)
    if after.live_rollout is not None:
        after = _judged(deployment, after, after.live_rollout, observed, is_paused, now)
    # The baseline must not change during a comparison.
    elif _may_begin(after, observed) and not is_paused:
        after = _begun(deployment, after, now)
    after = retained(deployment, status, after, observed)
    after = with_unsent(status, after, observed)
    after = _with_device(_with_scale(after, observed), observed)
    after = replace(after, conditions=conditions(after, observed, now=now, deployment=deployment))
    # A pod that ends needs nothing, and none begins.
    held = deployment.spec.suspend or after.decided != status.decided
    retains = deployment.spec.draft.retained > 0
    actions = () if held else tuple(due_actions(after, observed, retains=retains))
    return Decision(after, actions)


def _ordered(
    deployment: AuroraDeployment, status: Status, command: Command | None, now: datetime
) -> tuple[Status, Command | None]:
    """The status with the answer to an annotation, and the command if it is to be carried out."""
    if command is None:
        return status, None
    answered = status.last_command
    if command.request and answered is not None and command.request == answered.request:
        return status, None
    try:
        command = checked(command, deployment, status)
    except AuroraError as error:
        answer = LastCommand(command.request, "Refused", str(error), now)
        return replace(status, last_command=answer if command.request else answered), None
    if command.request:
        status = replace(status, last_command=LastCommand(command.request, "Done", "", now))
    return status, command


def _with_scale(status: Status, observed: Observation) -> Status:
    scale = observed.scale
    if scale is None:
        return status
    return replace(
        status,
        replicas=scale.replicas,
        ready_replicas=scale.ready,
        updated_replicas=scale.updated,
        selector=scale.selector,
    )


def _with_device(status: Status, observed: Observation) -> Status:
    """The status with what the inferences compute on; what it was while none answers."""
    found = sorted({view.device for view in observed.inferences if view.device})
    return replace(status, device=", ".join(found)) if found else status


def _paused(status: Status, command: Command | None) -> bool:
    if command is not None and command.kind in ("pause", "resume"):
        return command.kind == "pause"
    return status.paused


def _with_stable(status: Status, observed: Observation) -> Status:
    """Adopts an inference's stable draft if the status has none yet."""
    if status.stable is not None or status.live_rollout is not None:
        return status
    found = next((view.stable for view in observed.inferences if view.stable is not None), None)
    if found is not None and observed.initial is not None and not found.uri:
        # An engine that began with it was not told where it is from.
        found = replace(found, uri=observed.initial.uri)
    return replace(status, stable=found)


def _with_queue(status: Status, observed: Observation) -> Status:
    rollout = status.live_rollout
    known = [status.stable, None if rollout is None else rollout.candidate.draft]
    digests = frozenset(draft.digest for draft in known if draft is not None)
    return replace(status, queue=enqueue(status.queue, observed.published, known=digests))


def _with_trainer(
    deployment: AuroraDeployment, status: Status, view: TrainerView | None, now: datetime
) -> Status:
    """The status with what the trainer does; what it last did while it cannot be reached."""
    if deployment.spec.suspend or deployment.spec.trainer.suspend:
        return replace(status, trainer=None)
    if view is None:
        return status
    before = status.trainer
    since = before.since if before is not None and before.phase == view.phase else now
    after = Training(
        phase=view.phase,
        since=since,
        min_new_trajectories=view.min_new_trajectories,
        steps_per_round=view.steps_per_round,
        checkpoint=view.checkpoint,
        acceptance_bps=view.acceptance_bps,
        withheld=view.withheld,
    )
    return replace(status, trainer=after)


def _may_begin(status: Status, observed: Observation) -> bool:
    """Whether an inference serves, with the draft to begin with if there is one."""
    return bool(observed.expected) and (status.stable is not None or observed.initial is None)


def _begun(deployment: AuroraDeployment, status: Status, now: datetime) -> Status:
    """The status with a rollout of the waiting candidate begun, if there is one."""
    candidate, queue = dequeue(status.queue)
    if candidate is None:
        return status
    if status.stable is not None and candidate.draft.digest == status.stable.digest:
        return replace(status, queue=queue)
    terms = rollout_terms(deployment, status)
    if terms.dry_run and terms.method != "Replay":
        # It waits for what it can be compared with.
        return status
    # Only requests newer than what the candidate was trained on say anything about it.
    since = candidate.trained_through
    replay = Replay(since, begin=since) if terms.method == "Replay" else None
    rollout = Rollout(
        id=f"{deployment.metadata.name}-{candidate.sequence}",
        candidate=candidate,
        plan=terms,
        state=Replaying(Clock(now)) if terms.dry_run else Pending(Clock(now)),
        without_stable=status.stable is None,
        evidence=Evidence(
            replay=replay,
            guardrails=tuple(
                guardrail_state(guardrail.name, guardrail.margin_bps)
                for guardrail in deployment.spec.rollout.guardrails
            ),
        ),
        started_at=now,
    )
    # One that cannot be promoted spends nothing of alpha.
    attempts = status.attempts if terms.dry_run else status.attempts + 1
    return replace(status, rollout=rollout, queue=queue, attempts=attempts)


def rollout_terms(deployment: AuroraDeployment, status: Status) -> RolloutPlan:
    """The terms of a rollout that begins now; replay needs two drafts and a trainer."""
    spec, stable = deployment.spec.rollout, status.stable
    may_replay = stable is not None and bool(stable.uri) and not deployment.spec.trainer.suspend
    method = spec.analysis.method if may_replay else "Canary"
    return RolloutPlan(
        steps_percent=tuple(step.weight_percent for step in spec.steps),
        alpha=spec.analysis.alpha,
        min_effect_bps=spec.analysis.min_effect_bps,
        min_requests=spec.analysis.min_requests,
        max_duration_seconds=spec.analysis.max_duration_seconds,
        method=method,
        attempt=status.attempts + 1 if method == "Replay" else 0,
        dry_run=spec.dry_run,
    )


def _judged(
    deployment: AuroraDeployment,
    status: Status,
    rollout: Rollout,
    observed: Observation,
    is_paused: bool,
    now: datetime,
) -> Status:
    """The status with the new outcomes counted and the rollout advanced."""
    rollout = tallied(rollout, status.stable, observed)
    seen = _of_rollout(rollout, status.stable, observed, is_paused=is_paused)
    outdone = _is_outdone(rollout.candidate, status.queue.waiting)
    seen = replace(seen, suspended=deployment.spec.suspend, outdone=outdone)
    state = _advanced(rollout, seen, now)
    rollout = replace(rollout, state=state)
    if deployment.spec.suspend and observed.is_stopped:
        # On one machine the next run has the same name, and did not die.
        rollout = _without_the_gone(rollout, observed)
    acceptance = status.stable_acceptance_bps
    if rollout.evidence.stable.requests > 0:
        acceptance = round(rollout.evidence.stable.acceptance * 10_000)
    status = replace(status, rollout=rollout, stable_acceptance_bps=acceptance)
    if not isinstance(state, Ended):
        return status
    if isinstance(state, Promoted):
        measured = rollout.evidence.candidate
        status = replace(
            status,
            stable=rollout.candidate.draft,
            attempts=0,
            watch=watch.begun(
                rollout,
                status.stable,
                seconds=deployment.spec.rollout.watch_seconds,
                now=now,
            ),
            stable_acceptance_bps=(
                round(measured.acceptance * 10_000) if measured.requests > 0 else None
            ),
        )
    status = status.with_verdict(verdict_of(rollout, state, now))
    return replace(status, rollout=_without_the_gone(rollout, observed))


def _advanced(rollout: Rollout, observed: Observed, now: datetime) -> State:
    state, terms, replay = rollout.state, rollout.plan, rollout.evidence.replay
    if isinstance(state, Replaying):
        assert replay is not None
        return advance_dry(state, plan=terms, replay=replay, observed=observed, now=now)
    return advance(state, plan=terms, evidence=rollout.evidence, observed=observed, now=now)


def _without_the_gone(rollout: Rollout, observed: Observation) -> Rollout:
    """The ended rollout with the cursors of the inferences that still exist.

    Not before it ends: one that seems gone may be unseen for a moment and would be counted again.
    """
    kept = {name: cursor for name, cursor in rollout.cursors.items() if name in observed.existing}
    return replace(rollout, cursors=kept)


def _of_rollout(
    rollout: Rollout, stable: Draft | None, observed: Observation, *, is_paused: bool
) -> Observed:
    """What `observed` says about this rollout."""
    draft = rollout.candidate.draft
    views = observed.participants
    # A serving inference that cannot be reached may or may not have the candidate.
    complete = bool(views) and len(views) == len(observed.expected)
    staged = [
        is_draft(view.stable, stable)
        and is_draft(view.candidate, draft)
        and (view.rollout_id, view.candidate_bps) == (rollout.id, share_bps(rollout))
        for view in views
    ]
    promoted = {view.name for view in views if is_draft(view.stable, draft)}
    command = observed.command
    ordered: Literal["abort", "promote"] | None = None
    if command is not None and command.rollout_id == rollout.id:
        if command.kind == "abort":
            ordered = "abort"
        elif command.kind == "promote":
            ordered = "promote"
    return Observed(
        staged=complete and all(staged),
        staged_somewhere=any(staged),
        promoted=complete and len(promoted) == len(views),
        unpromoted=tuple(sorted(observed.expected - promoted)),
        refusal=_refusal(rollout, observed),
        not_comparable=_not_comparable(rollout, observed),
        paused=is_paused,
        command=ordered,
    )


def _is_outdone(candidate: Candidate, waiting: Candidate | None) -> bool:
    if waiting is None or waiting.held_out_bps is None or candidate.held_out_bps is None:
        return False
    return waiting.held_out_bps - candidate.held_out_bps >= _OUTDONE_BPS


def _not_comparable(rollout: Rollout, observed: Observation) -> str | None:
    batch = observed.replay
    return (batch.refusal or None) if batch is not None and batch.rollout_id == rollout.id else None


def _refusal(rollout: Rollout, observed: Observation) -> str | None:
    """Why the candidate is refused; None where that is one inference's own problem.

    It is once it is stable anywhere, or on trial: others have loaded the very same files.
    """
    draft = rollout.candidate.draft
    refusal = observed.refusal(draft.digest)
    if refusal is None or not refusal.lasting:
        return None
    is_loaded = any(
        is_draft(view.stable, draft)
        or (is_draft(view.candidate, draft) and not isinstance(rollout.state, Pending))
        for view in observed.participants
    )
    return None if is_loaded else str(refusal)
