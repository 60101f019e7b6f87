"""The conditions of a deployment, computed from each observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from aurora_operator.domain.manifest.spec import AuroraDeployment
from aurora_operator.domain.plan.observation import ComponentView, Observation, Scale
from aurora_operator.domain.rollout.parity import disparity
from aurora_operator.domain.rollout.state import Analyzing
from aurora_operator.domain.status.deployment import Condition, ConditionType, Rollout, Status

# A thousand pods may each have a cause.
_MESSAGE_CHARACTERS = 1024
_NAMED = 3
# Progress towards what the manifest asks for, and problems that keep it from being carried out.
_TOWARDS_SPEC = frozenset(
    {"ComponentsStarting", "InferenceUpdating", "DraftsStaging", "Suspending"}
)
_UNSOLVED = frozenset(
    {
        "ApplyRefused",
        "CertificateNotIssued",
        "EngineTaken",
        "InvalidSpec",
        "NameTaken",
        "StableDraftRefused",
    }
)


@dataclass(frozen=True, slots=True)
class _Finding:
    status: bool
    reason: str
    message: str = ""


def conditions(
    status: Status,
    observed: Observation,
    *,
    now: datetime,
    deployment: AuroraDeployment | None = None,
) -> tuple[Condition, ...]:
    """All conditions; a transition time changes only if the status does.

    Without a valid `deployment`, what was said of its clients stands.
    """
    found: dict[ConditionType, _Finding] = {
        "Ready": _ready(observed),
        "Progressing": _progressing(status, observed, deployment),
        "Degraded": _degraded(status, observed),
    }
    if deployment is not None and deployment.spec.suspend:
        found |= _suspended(observed)
    elif deployment is not None and any(one.type == "Suspended" for one in status.conditions):
        found["Suspended"] = _Finding(False, "Resumed")
    found |= _for_kstatus(found)
    # On one machine, clients connect to loopback alone.
    if deployment is not None and observed.scale is not None:
        found["ClientsGuarded"] = _clients_guarded(deployment)
    kept = [known for known in status.conditions if known.type not in found]
    return (*(_condition(kind, one, status, now) for kind, one in found.items()), *kept)


def _condition(kind: ConditionType, finding: _Finding, status: Status, now: datetime) -> Condition:
    before = next((known for known in status.conditions if known.type == kind), None)
    unchanged = before is not None and before.status == finding.status
    return Condition(
        type=kind,
        status=finding.status,
        reason=finding.reason,
        message=finding.message[:_MESSAGE_CHARACTERS],
        last_transition_time=before.last_transition_time if before and unchanged else now,
        observed_generation=status.observed_generation,
    )


def _suspended(observed: Observation) -> Mapping[ConditionType, _Finding]:
    """Whether all has stopped, which takes as long as requests in progress and training steps."""
    ending = [view.name for view in observed.components]
    ready = _Finding(False, "Suspended", "spec.suspend is true")
    if ending or observed.existing:
        message = f"waiting for {', '.join(ending or ['inference'])} to end"
        return {
            "Ready": ready,
            "Progressing": _Finding(True, "Suspending", message),
            "Suspended": _Finding(False, "Suspending", message),
        }
    return {
        "Ready": ready,
        "Progressing": _Finding(False, "Suspended"),
        "Suspended": _Finding(True, "Suspended"),
    }


def _ready(observed: Observation) -> _Finding:
    """Whether requests are served, which needs neither buffer nor trainer."""
    inference = next((view for view in observed.components if view.name == "inference"), None)
    cause = "" if inference is None else inference.message
    if observed.scale is not None:
        return _all_ready(observed.scale, cause)
    if inference is None:
        return _Finding(False, "InferenceNotReady", "no inference runs")
    if inference.ready:
        return _Finding(True, "Serving")
    return _Finding(False, "InferenceNotReady", cause or "inference starts")


def _all_ready(scale: Scale, cause: str) -> _Finding:
    """Like a Deployment's Available with maxUnavailable 0: pods of any template count."""
    if scale.wanted == 0:
        if cause:
            return _Finding(False, "InferenceNotReady", cause)
        return _Finding(False, "ScaledToZero", "no inference is wanted")
    # A pod that is being replaced may be ready beside its successor.
    count = min(scale.ready, scale.wanted)
    message = f"{count} of {scale.wanted} inference pods are ready"
    if scale.ready >= scale.wanted:
        if scale.ignored is not None:
            message += (
                f"; spec.replicas, {scale.ignored}, is ignored: inference.autoscaling decides"
            )
        return _Finding(True, "Serving", message)
    return _Finding(False, "InferenceNotReady", f"{message}: {cause}" if cause else message)


def _for_kstatus(
    found: Mapping[ConditionType, _Finding],
) -> Mapping[ConditionType, _Finding]:
    """What tools that know no AuroraDeployments ask: does it get there, or does it need someone?

    A rollout is no part of it: it may take days, and what the manifest asks for serves meanwhile.
    """
    ready, progressing, degraded = found["Ready"], found["Progressing"], found["Degraded"]
    stalled = degraded.status and (degraded.reason in _UNSOLVED or not ready.status)
    reconciling = not stalled and progressing.reason in _TOWARDS_SPEC
    settled = _Finding(False, "AsExpected")
    return {
        "Reconciling": progressing if reconciling else settled,
        "Stalled": degraded if stalled else settled,
    }


def _clients_guarded(deployment: AuroraDeployment) -> _Finding:
    """Whether anything limits who may send requests, as far as the manifest tells."""
    security = deployment.spec.security
    if security.auth_secret_ref is not None:
        return _Finding(True, "TokensRequired")
    if security.client_peers:
        return _Finding(True, "PeersLimited")
    if deployment.spec.engine.attach is not None:
        return _Finding(True, "EngineKeysRequired")
    message = (
        f"whoever reaches the Service {deployment.metadata.name}-inference may send requests: "
        "set security.authSecretRef or security.clientPeers"
    )
    return _Finding(False, "Unguarded", message)


def _progressing(
    status: Status, observed: Observation, deployment: AuroraDeployment | None
) -> _Finding:
    awaited = _awaited(observed)
    if (rollout := status.live_rollout) is not None:
        parts = [f"{rollout.id} is {type(rollout.state).__name__}"]
        if isinstance(rollout.state, Analyzing):
            parts[0] += f" at {rollout.plan.steps_percent[rollout.state.step]}% of the traffic"
            if rollout.evidence.promoting_log_e >= rollout.plan.promotion_threshold:
                parts += _held_back(rollout)
        if rollout.plan.dry_run:
            parts[0] += ", a dry run"
        elif not observed.participants and not awaited:
            parts.append("waiting for an inference that is ready")
        digest = rollout.candidate.draft.digest
        refused = [f"refused by {each}" for each in observed.refusals if each.digest == digest]
        message = "; ".join([*parts, *awaited, *_few(refused)])
        return _Finding(True, f"Rollout{type(rollout.state).__name__}", message)
    starting = [view.name for view in observed.components if not view.ready and not view.failing]
    if starting:
        return _Finding(True, "ComponentsStarting", f"waiting for {', '.join(starting)}")
    scale = observed.scale
    if scale is not None and min(scale.updated, scale.ready) < scale.wanted:
        message = f"{scale.updated} of {scale.wanted} inference pods are updated"
        return _Finding(True, "InferenceUpdating", message)
    if awaited:
        return _Finding(True, "DraftsStaging", "; ".join(awaited))
    if _is_beginning(status, observed):
        return _Finding(True, "DraftsStaging", "the draft to begin with is not staged yet")
    return _Finding(False, "Idle", _why_idle(status, deployment))


def _why_idle(status: Status, deployment: AuroraDeployment | None) -> str:
    """Why a candidate does not get its dry run, or why there is none, if either is so."""
    waiting = status.queue.waiting
    if deployment is not None and deployment.spec.rollout.dry_run and waiting is not None:
        name = waiting.draft.checkpoint
        if status.stable is None:
            return f"{name} waits: a dry run compares with a stable draft, and there is none"
        if deployment.spec.trainer.suspend:
            return f"{name} waits: a dry run needs the trainer, which is suspended"
    withheld = "" if status.trainer is None else status.trainer.withheld
    return f"the last round published nothing: {withheld}" if withheld else ""


def _held_back(rollout: Rollout) -> list[str]:
    """Why a candidate that has proved to be better is not promoted yet."""
    evidence, required = rollout.evidence, rollout.plan.min_requests
    found = []
    if evidence.requests < required:
        found.append(f"better, and {evidence.requests} of {required} live requests judged")
    if evidence.held_back_by:
        found.append(f"held back by {', '.join(evidence.held_back_by)}")
    return found


def _is_beginning(status: Status, observed: Observation) -> bool:
    initial = observed.initial
    if status.stable is not None or initial is None:
        return False
    return observed.refusal(initial.digest) is None and bool(observed.participants)


def _awaited(observed: Observation) -> Sequence[str]:
    """Which inferences a change of the drafts waits for, and why; the first few by name."""
    return _few([f"waiting for {name}: {cause}" for name, cause in observed.awaited.items()])


def _few(found: Sequence[str]) -> Sequence[str]:
    if len(found) > _NAMED:
        return [*found[:_NAMED], f"and {len(found) - _NAMED} more"]
    return found


def _degraded(status: Status, observed: Observation) -> _Finding:
    """Every problem, under the reason of the first."""
    found = [(problem.reason, problem.message) for problem in observed.problems]
    found += [
        ("ComponentFailing", "; ".join([f"{view.name}: {view.message}", *_said(view, observed)]))
        for view in observed.components
        if view.failing
    ]
    found += _reported(observed)
    if (problem := _trainer_problem(observed)) is not None:
        found.append(("ComponentFailing", f"trainer: {problem}"))
    stable = status.stable or observed.initial
    if stable is not None and (refusal := observed.refusal(stable.digest)):
        found.append(("StableDraftRefused", str(refusal)))
    if messages := _disparities(observed):
        found.append(("AcceptanceDisparity", "; ".join(messages)))
    if not found:
        return _Finding(False, "AsExpected")
    return _Finding(True, found[0][0], "; ".join(message for _, message in found))


def _disparities(observed: Observation) -> list[str]:
    """Which drafts an engine accepts less of than their weights predict; each is named once."""
    batches = [batch for batch in (observed.replay, observed.watch) if batch is not None]
    agreements = sorted(
        (each for batch in batches for each in batch.agreements), key=lambda each: each.tested
    )
    found = {each.digest: disparity(each) for each in agreements}
    return [f"draft {digest}: {message}" for digest, message in found.items() if message]


def _said(view: ComponentView, observed: Observation) -> Sequence[str]:
    """What inferences that do not serve answer, which a probe cannot tell; the first few."""
    if view.name != "inference":
        return []
    found = sorted(observed.absences.items())
    return _few([f"{name} {cause}" for name, cause in found if name not in observed.expected])


def _trainer_problem(observed: Observation) -> str | None:
    """What a trainer that runs says of itself."""
    runs = any(view.name == "trainer" and view.ready for view in observed.components)
    return (observed.trainer.problem or None) if observed.trainer is not None and runs else None


def _reported(observed: Observation) -> list[tuple[str, str]]:
    """What inferences say of themselves; the first few by name."""
    found = [
        (problem.reason, f"{view.name}: {problem.message}")
        for view in observed.inferences
        for problem in view.problems
    ]
    if len(found) > _NAMED:
        return [*found[:_NAMED], (found[0][0], f"and {len(found) - _NAMED} more")]
    return found
