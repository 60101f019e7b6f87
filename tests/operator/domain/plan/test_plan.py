"""`plan` against a small world of inferences, with crashes at every point of the loop."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.plan.action import (
    PromoteDraft,
    SetTraffic,
    StageDraft,
    UnstageDraft,
)
from aurora_operator.domain.plan.command import Command
from aurora_operator.domain.plan.observation import (
    ComponentView,
    InferenceView,
    Observation,
    OutcomeBatch,
    TrainerView,
)
from aurora_operator.domain.plan.plan import HISTORY_LIMIT, plan
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Pending,
    Promoted,
    Promoting,
    RolledBack,
    WaitingForTraffic,
)
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

START = datetime(2026, 1, 1, tzinfo=UTC)


def draft(number):
    return Draft(f"ckpt-{number}", f"sha256:{number:064x}", f"file:///store/ckpt-{number}")


def candidate(number):
    return Candidate(draft(number), number, f"{number}-0")


@dataclass
class Inference:
    """One inference as its contract says, and the requests that it served."""

    name: str = "inference"
    instance: str = "i1"
    stable: Draft | None = None
    candidate: Draft | None = None
    rollout_id: str = ""
    candidate_bps: int = 0
    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    promotions: list[str] = field(default_factory=list)

    def view(self):
        return InferenceView(
            self.name,
            self.instance,
            self.stable,
            self.candidate,
            self.rollout_id,
            self.candidate_bps,
        )

    def apply(self, action):
        match action:
            case StageDraft(slot="stable", draft=staged):
                self.stable = staged
            case StageDraft(draft=staged):
                self.candidate = staged
            case UnstageDraft():
                assert self.candidate_bps == 0, "a share without a candidate"
                self.candidate = None
            case SetTraffic(rollout_id=rollout_id, candidate_bps=bps):
                assert bps == 0 or self.candidate is not None, "a share without a candidate"
                self.rollout_id, self.candidate_bps = rollout_id, bps
            case PromoteDraft(digest=digest):
                if self.stable is None or self.stable.digest != digest:
                    assert self.candidate is not None
                    assert self.candidate.digest == digest
                    self.stable, self.candidate = self.candidate, None
                    self.candidate_bps = 0
                    self.promotions.append(digest)

    def serve(self, draw, acceptance):
        """One request, its draft accepted as `acceptance[digest]` says."""
        chosen = draw.random() < self.candidate_bps / 10_000
        served = self.candidate if chosen else self.stable
        drafted = 20 if served is not None else 0
        rate = acceptance.get(served.digest, 0.2) if served is not None else 0
        accepted = sum(draw.random() < rate for _ in range(drafted))
        arm = "candidate" if chosen else "stable"
        outcome = Outcome(arm, self.candidate_bps, drafted, accepted)
        self.outcomes.append((self.rollout_id, outcome))

    def batch(self, rollout_id, cursor):
        after = cursor.after if cursor is not None and cursor.instance == self.instance else 0
        listed = tuple(
            (number, outcome)
            for number, (owner, outcome) in enumerate(self.outcomes, start=1)
            if owner == rollout_id and number > after
        )
        return OutcomeBatch(self.name, self.instance, rollout_id, listed)

    def restart(self, instance, stable):
        self.instance, self.stable, self.candidate = instance, stable, None
        self.rollout_id, self.candidate_bps, self.outcomes = "", 0, []


class KilledError(Exception):
    """The operator is killed here."""


@dataclass
class World:
    deployment: object
    inferences: list[Inference]
    published: list[Candidate] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    absences: dict[str, str] = field(default_factory=dict)
    initial: Draft | None = None
    acceptance: dict[str, float] = field(default_factory=dict)
    disk: str = field(default_factory=lambda: status_to_json(Status()))
    now: datetime = START
    steps: int = 0
    crash_at: int | None = None
    draw: random.Random = field(default_factory=lambda: random.Random(7))

    def _effect(self):
        """A point at which the operator may die."""
        self.steps += 1
        if self.steps == self.crash_at:
            raise KilledError

    @property
    def status(self):
        return status_from_json(self.disk)

    def observe(self, command=None):
        status = self.status
        rollout = status.live_rollout
        batches = ()
        if rollout is not None:
            batches = tuple(
                inference.batch(rollout.id, rollout.cursors.get(inference.name))
                for inference in self.inferences
            )
        names = frozenset(inference.name for inference in self.inferences)
        return Observation(
            initial=self.initial,
            inferences=tuple(
                inference.view()
                for inference in self.inferences
                if inference.name not in self.absences
            ),
            expected=names,
            existing=names,
            absences=self.absences,
            batches=batches,
            published=tuple(c for c in self.published if c.sequence > status.queue.sequence),
            refusals=self.refusals,
            command=command,
            components=(ComponentView("inference", ready=True),),
        )

    def reconcile(self, command=None):
        """One turn of the shell's loop: persist, then act; dead at `crash_at`."""
        self.now += timedelta(seconds=1)
        status = self.status
        decision = plan(self.deployment, status, self.observe(command), self.now)
        if decision.status != status:
            self._effect()
            self.disk = status_to_json(decision.status)
            self._effect()
        by_name = {inference.name: inference for inference in self.inferences}
        for action in decision.actions:
            self._effect()
            by_name[action.inference].apply(action)
            self._effect()
        return decision

    def settle(self):
        for _ in range(20):
            decision = self.reconcile()
            if not decision.actions and decision.status == self.status:
                before = self.disk
                self.reconcile()
                if self.disk == before:
                    return
        raise AssertionError("does not settle")

    def run(self, requests):
        for _ in range(requests):
            for inference in self.inferences:
                inference.serve(self.draw, self.acceptance)
            try:
                self.reconcile()
            except KilledError:
                continue


INITIAL = draft(0)


def world(deployment, *, count=1, stable=INITIAL, **settings):
    names = ["inference"] if count == 1 else [f"inference-{n}" for n in range(count)]
    return World(deployment, [Inference(name, stable=stable) for name in names], **settings)


def test_the_first_stable_draft_is_the_one_that_inference_began_with(deployment):
    it = world(deployment)
    it.settle()
    assert it.status.stable == draft(0)
    assert it.status.rollout is None


def test_nothing_to_do_writes_nothing(deployment):
    it = world(deployment)
    it.settle()
    before = it.steps
    it.reconcile()
    it.reconcile()
    assert it.steps == before


def test_a_better_candidate_is_promoted(deployment):
    it = world(deployment, published=[candidate(1)], acceptance={draft(1).digest: 0.7})
    it.settle()
    assert it.status.rollout.state == WaitingForTraffic()
    assert (it.inferences[0].rollout_id, it.inferences[0].candidate_bps) == ("chat-1", 2000)
    it.run(200)
    status = it.status
    assert status.rollout.state == Promoted("AcceptanceBetter")
    assert status.stable == draft(1)
    assert 6500 < status.stable_acceptance_bps < 7500
    assert it.inferences[0].stable == draft(1)
    assert (it.inferences[0].rollout_id, it.inferences[0].candidate_bps) == ("", 0)
    assert [(verdict.id, verdict.outcome) for verdict in status.history] == [("chat-1", "Promoted")]


def test_a_worse_candidate_is_rolled_back_and_removed(deployment):
    it = world(
        deployment,
        published=[candidate(1)],
        acceptance={draft(0).digest: 0.7, draft(1).digest: 0.1},
    )
    it.run(300)
    assert it.status.rollout.state == RolledBack("AcceptanceHarm")
    assert it.inferences[0].stable == draft(0)
    assert it.inferences[0].candidate is None
    assert it.status.history[0].effect_bps < -3000


def test_the_first_draft_is_compared_with_none(deployment):
    it = world(deployment, stable=None, published=[candidate(1)], acceptance={draft(1).digest: 0.5})
    it.run(200)
    assert it.status.stable == draft(1)


def test_promotion_waits_until_the_intent_is_on_disk(deployment):
    it = world(deployment, published=[candidate(1)], acceptance={draft(1).digest: 0.7})
    for _ in range(300):
        it.inferences[0].serve(it.draw, it.acceptance)
        persisted = it.status.rollout and it.status.rollout.state
        decision = it.reconcile()
        if any(isinstance(action, PromoteDraft) for action in decision.actions):
            assert persisted == Promoting("AcceptanceBetter")
            return
    raise AssertionError("no promotion")


def test_only_the_newest_waits(deployment):
    it = world(deployment, published=[candidate(1)])
    it.settle()
    it.published += [candidate(2), candidate(4), candidate(3)]
    it.settle()
    assert it.status.queue == Queue(4, candidate(4), (draft(3).digest, draft(2).digest))
    it.reconcile(Command("abort", "chat-1"))
    it.settle()
    assert it.status.rollout.id == "chat-4"
    assert it.inferences[0].rollout_id == "chat-4"
    assert it.inferences[0].candidate == draft(4)


def test_a_refused_checkpoint_is_rolled_back_by_name(deployment):
    it = world(deployment, published=[candidate(1)])
    it.refusals = {draft(1).digest: "ckpt-1: lm_head holds NaN"}
    it.settle()
    assert it.status.rollout.state == RolledBack("CheckpointRefused: ckpt-1: lm_head holds NaN")
    assert it.inferences[0].candidate is None


def test_a_refusal_undoes_no_promotion_that_has_begun(deployment):
    it = world(deployment, published=[candidate(1)], acceptance={draft(1).digest: 0.7})
    for _ in range(300):
        it.inferences[0].serve(it.draw, it.acceptance)
        if any(isinstance(action, PromoteDraft) for action in it.reconcile().actions):
            break
    assert it.inferences[0].stable == draft(1)
    it.refusals = {draft(1).digest: "another pod: its volume is not mounted"}
    it.settle()
    assert it.status.rollout.state == Promoted("AcceptanceBetter")
    assert it.status.stable == draft(1)


def test_the_status_follows_the_phases_of_the_trainer(deployment):
    later = START + timedelta(minutes=5)
    waiting = TrainerView("WaitingForTrajectories", 48, 60)

    def after(status, view, now):
        return plan(deployment, status, Observation(trainer=view), now).status

    first = after(Status(), waiting, START)
    assert first.trainer.since == START
    # It says the same again, or cannot be reached: nothing is written.
    assert after(first, waiting, later) == first
    assert after(first, None, later) == first
    published = after(first, replace(waiting, checkpoint="ckpt-1", acceptance_bps=6250), later)
    assert (published.trainer.since, published.trainer.acceptance_bps) == (START, 6250)
    training = after(first, replace(waiting, phase="Training"), later)
    assert training.trainer.since == later
    assert status_from_json(status_to_json(training)) == training


def test_a_suspended_trainer_is_not_in_the_status(deployment):
    trainer = deployment.spec.trainer.model_copy(update={"suspend": True})
    spec = deployment.spec.model_copy(update={"trainer": trainer})
    view = TrainerView("Training", 48, 60)
    before = plan(deployment, Status(), Observation(trainer=view), START).status
    suspended = deployment.model_copy(update={"spec": spec})
    assert plan(suspended, before, Observation(trainer=view), START).status.trainer is None


def test_pause_holds_and_resume_goes_on(deployment):
    it = world(deployment, published=[candidate(1)], acceptance={draft(1).digest: 0.7})
    it.settle()
    it.reconcile(Command("pause"))
    it.run(200)
    assert it.status.paused
    assert it.status.rollout.state == WaitingForTraffic()
    it.reconcile(Command("resume"))
    it.run(5)
    assert it.status.stable == draft(1)


def test_no_rollout_begins_while_the_manifest_pauses(deployment):
    rollout = deployment.spec.rollout.model_copy(update={"paused": True})
    spec = deployment.spec.model_copy(update={"rollout": rollout})
    it = world(deployment.model_copy(update={"spec": spec}), published=[candidate(1)])
    it.settle()
    assert it.status.rollout is None
    assert it.status.queue.waiting == candidate(1)


def test_a_command_for_another_rollout_does_nothing(deployment):
    it = world(deployment, published=[candidate(1)])
    it.settle()
    it.reconcile(Command("promote", "chat-7"))
    assert it.status.rollout.state == WaitingForTraffic()


def test_terms_stay_those_of_the_beginning(deployment):
    it = world(deployment, published=[candidate(1)])
    it.settle()
    analysis = deployment.spec.rollout.analysis.model_copy(update={"alpha": "0.4"})
    rollout = deployment.spec.rollout.model_copy(update={"analysis": analysis})
    spec = deployment.spec.model_copy(update={"rollout": rollout})
    it.deployment = deployment.model_copy(update={"spec": spec})
    it.reconcile()
    assert it.status.rollout.plan.alpha == "0.01"


def test_an_inference_that_restarts_is_healed_and_nothing_counts_twice(deployment):
    it = world(deployment, published=[candidate(1), candidate(2)])
    it.acceptance = {draft(2).digest: 0.25}
    it.run(30)
    counted = it.status.rollout.evidence.requests
    assert counted > 0
    it.inferences[0].restart("i2", stable=draft(9))
    it.settle()
    assert it.inferences[0].stable == draft(0)
    assert it.inferences[0].candidate == draft(2)
    assert it.inferences[0].rollout_id == "chat-2"
    assert it.inferences[0].candidate_bps > 0
    it.run(10)
    # The request served before the share was known again belongs to no rollout.
    assert counted + 9 <= it.status.rollout.evidence.requests <= counted + 10


def test_an_inference_that_restarts_amid_a_promotion(deployment):
    it = world(deployment, published=[candidate(1)])
    it.settle()
    it.reconcile(Command("promote", "chat-1"))
    it.inferences[0].restart("i2", stable=draft(0))
    it.settle()
    assert it.status.stable == draft(1)
    assert it.inferences[0].stable == draft(1)


def test_an_outcome_delivered_again_is_not_counted(deployment):
    it = world(deployment, published=[candidate(1)])
    it.run(20)
    status = it.status
    rollout = status.live_rollout
    everything = it.inferences[0].batch(rollout.id, None)
    again = replace(it.observe(), batches=(everything, everything))
    after = plan(deployment, status, again, it.now).status
    assert after.rollout.evidence.requests == len(
        [owner for owner, _ in it.inferences[0].outcomes if owner == rollout.id]
    )


def test_several_inferences_move_together(deployment):
    it = world(deployment, count=3, published=[candidate(1)], acceptance={draft(1).digest: 0.7})
    it.run(100)
    assert it.status.stable == draft(1)
    assert all(inference.promotions == [draft(1).digest] for inference in it.inferences)


def test_history_is_bounded_and_newest_first(deployment):
    it = world(deployment)
    for number in range(1, HISTORY_LIMIT + 4):
        it.published.append(candidate(number))
        it.settle()
        it.reconcile(Command("abort", f"chat-{number}"))
        it.settle()
    ids = [verdict.id for verdict in it.status.history]
    assert len(ids) == HISTORY_LIMIT
    assert ids[0] == f"chat-{HISTORY_LIMIT + 3}"


def rollout_history(it):
    """One whole rollout driven to its end; its final state without times and counts."""
    it.run(120)
    status = it.status
    inference = it.inferences[0]
    return (
        status.stable,
        type(status.rollout.state),
        [(verdict.id, verdict.outcome) for verdict in status.history],
        (inference.stable, inference.candidate, inference.candidate_bps),
        inference.promotions,
    )


@pytest.mark.parametrize(("better", "outcome"), [(0.7, Promoted), (0.02, RolledBack)])
def test_killed_at_every_effect_it_ends_the_same(deployment, better, outcome):
    """The k-th write or call is the operator's last, before and after it, for every k."""

    def fresh():
        return world(
            deployment,
            published=[candidate(1)],
            acceptance={draft(0).digest: 0.3, draft(1).digest: better},
        )

    undisturbed = fresh()
    expected = rollout_history(undisturbed)
    assert expected[1] is outcome
    assert undisturbed.steps > 80
    for crash_at in range(1, undisturbed.steps + 1):
        it = fresh()
        it.crash_at = crash_at
        assert rollout_history(it) == expected
        counted = [owner for owner, _ in it.inferences[0].outcomes if owner == "chat-1"]
        assert it.status.rollout.evidence.requests <= len(counted)


def test_conditions_tell_what_is_wrong(deployment):
    def conditions(status, *components, now=START):
        observed = Observation(components=components)
        after = plan(deployment, status, observed, now).status
        return after, {condition.type: condition for condition in after.conditions}

    starting = ComponentView("inference", ready=False)
    status, found = conditions(Status(), starting)
    assert not found["Ready"].status
    assert found["Progressing"].message == "waiting for inference"
    ready = ComponentView("inference", ready=True)
    failing = ComponentView("trainer", ready=False, failing=True, message="no space left")
    later = START + timedelta(hours=1)
    status, found = conditions(status, ready, failing, now=later)
    assert found["Ready"].status
    assert found["Ready"].last_transition_time == later
    assert found["Degraded"].message == "trainer: no space left"
    _, found = conditions(status, ready, now=later + timedelta(hours=1))
    assert not found["Degraded"].status
    assert found["Ready"].last_transition_time == later


def test_progress_is_told(deployment):
    it = world(deployment, published=[candidate(1)])
    it.run(3)
    assert isinstance(it.status.rollout.state, Analyzing | WaitingForTraffic | Pending)
    progressing = it.status.conditions[1]
    assert progressing.status
    assert progressing.message.startswith("chat-1 is ")
