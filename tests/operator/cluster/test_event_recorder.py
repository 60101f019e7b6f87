from dataclasses import replace
from datetime import UTC, datetime

from aurora_operator.cluster.event_recorder import Notice, notices
from aurora_operator.domain.rollout.evidence import ArmMean, Evidence
from aurora_operator.domain.rollout.replay import Replay
from aurora_operator.domain.rollout.state import (
    Clock,
    Promoted,
    Promoting,
    Replaying,
    RolloutPlan,
    WouldPromote,
    WouldRollBack,
)
from aurora_operator.domain.status.deployment import (
    Candidate,
    Condition,
    Draft,
    LastCommand,
    Rollout,
    Status,
    Verdict,
    Watch,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _status(*, ready: bool, degraded: bool) -> Status:
    return Status(
        conditions=(
            Condition("Ready", ready, "Serving" if ready else "InferenceNotReady", "", NOW, 1),
            Condition("Progressing", True, "ComponentsStarting", "", NOW, 1),
            Condition(
                "Degraded", degraded, "ApplyRefused" if degraded else "AsExpected", "", NOW, 1
            ),
        )
    )


STARTS = _status(ready=False, degraded=False)
SERVES = _status(ready=True, degraded=False)
BROKEN = _status(ready=False, degraded=True)


def test_a_new_deployments_start_is_not_reported():
    assert notices(Status(), STARTS) == ()
    assert notices(STARTS, STARTS) == ()


def test_each_flip_of_a_condition_is_reported_once():
    assert notices(STARTS, SERVES) == (Notice("Normal", "Serving", "Ready is True"),)
    assert [notice.type for notice in notices(SERVES, BROKEN)] == ["Warning", "Warning"]
    assert notices(Status(), BROKEN) == (Notice("Warning", "ApplyRefused", "Degraded is True"),)


def test_a_suspension_is_no_warning():
    suspended = replace(
        _status(ready=False, degraded=False).conditions[0], reason="Suspended", message="by choice"
    )
    after = replace(_status(ready=False, degraded=False), conditions=(suspended,))
    found = notices(_status(ready=True, degraded=False), after)
    assert found == (Notice("Normal", "Suspended", "by choice"),)


def test_the_answer_to_a_command_is_reported_once():
    refused = replace(SERVES, last_command=LastCommand("abort/chat-1", "Refused", "too late", NOW))
    assert notices(SERVES, refused) == (
        Notice("Warning", "CommandRefused", "abort/chat-1: too late"),
    )
    assert notices(refused, refused) == ()


def test_open_ports_are_reported_once_guarded_ones_only_after_them():
    def status(guarded):
        reason = "TokensRequired" if guarded else "Unguarded"
        return Status(conditions=(Condition("ClientsGuarded", guarded, reason, "", NOW, 1),))

    assert [notice.type for notice in notices(Status(), status(False))] == ["Warning"]
    assert notices(status(False), status(False)) == ()
    assert [notice.type for notice in notices(status(False), status(True))] == ["Normal"]
    assert notices(Status(), status(True)) == ()


def test_what_repeats_another_condition_is_not_reported():
    repeated = (
        Condition("Stalled", True, "ApplyRefused", "", NOW, 1),
        Condition("Reconciling", True, "ComponentsStarting", "", NOW, 1),
    )
    assert notices(Status(), Status(conditions=repeated)) == ()


def test_a_promotion_that_is_taken_back_is_reported_once():
    former, new = Draft("ckpt-1", "sha256:a", "file:///a"), Draft("ckpt-2", "sha256:b", "file:///b")
    watching = Status(stable=new, watch=Watch("chat-2", former, "0.01", NOW, Replay("5-0")))
    verdict = Verdict("chat-2-watch", "ckpt-2", "sha256:b", "RolledBack", "WatchHarm: x", 0, 0, NOW)
    reverted = replace(watching, stable=former, watch=None, history=(verdict,))
    assert notices(watching, reverted) == (
        Notice(
            "Warning",
            "PromotionReverted",
            "ckpt-1 is stable again: ckpt-2 is slower (WatchHarm: x)",
        ),
    )
    assert notices(reverted, reverted) == ()
    # Its time is over.
    assert notices(watching, replace(watching, watch=None)) == ()


def test_a_dry_runs_verdict_is_reported_and_no_warning():
    draft = Candidate(Draft("ckpt-2", "sha256:b", "file:///b"), 2)
    terms = RolloutPlan((5,), "0.01", 0, 300, 60.0, "Replay", 1, dry_run=True)
    running = Status(rollout=Rollout("chat-2", draft, terms, Replaying(Clock(NOW))))
    for verdict in (WouldPromote("ReplayBetter"), WouldRollBack("ReplayHarm: all requests")):
        ended = replace(running, rollout=replace(running.rollout, state=verdict))
        name = type(verdict).__name__
        said = f"chat-2 (ckpt-2) is {name}: {verdict.reason}"
        assert notices(running, ended) == (Notice("Normal", f"Rollout{name}", said),)
        assert notices(ended, ended) == ()


def test_a_verdict_says_what_was_measured():
    draft = Candidate(Draft("ckpt-2", "sha256:b", "file:///b"), 2)
    terms = RolloutPlan((5,), "0.01", 0, 300, 60.0, "Replay", 1)
    replay = Replay("9-0", 240, stable_steps=10.0, saved_steps=0.153, saved_scatter=240.0)
    evidence = replace(Evidence(stable=ArmMean(200, 0.5), candidate=ArmMean(12, 0.5)), effect=0.005)
    evidence = replace(evidence, effect_scatter=2.0, replay=replay)
    running = Status(rollout=Rollout("chat-2", draft, terms, Promoting("ReplayBetter", NOW)))
    after = replace(running.rollout, state=Promoted("ReplayBetter"), evidence=evidence)
    (notice,) = notices(running, replace(running, rollout=after))
    assert notice.reason == "RolloutPromoted"
    assert notice.message == (
        "chat-2 (ckpt-2) is Promoted: ReplayBetter (saves +1.53% of verify steps, 95% "
        f"{replay.ci_bps[0] / 100:+.2f} to {replay.ci_bps[1] / 100:+.2f}, by 240 requests "
        f"replayed; +0.50 points of acceptance, 95% {evidence.ci_bps[0] / 100:+.2f} to "
        f"{evidence.ci_bps[1] / 100:+.2f}, by 212 live requests)"
    )
