"""`plan` against a small world of inferences, with crashes at every point of the loop."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import reduce

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
    Refusal,
    TrainerView,
)
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.rollout.evidence import observe
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.state import (
    Analyzing,
    Pending,
    Promoted,
    Promoting,
    RolledBack,
    WaitingForTraffic,
)
from aurora_operator.domain.status.deployment import (
    HISTORY_LIMIT,
    Candidate,
    Draft,
    Queue,
    Status,
)
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
    # Requests in flight, of the stable draft and of the candidate.
    open: tuple[int, int] = (0, 0)

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
        outcome = Outcome(
            "candidate" if chosen else "stable",
            self.candidate_bps,
            drafted,
            accepted,
            stable_digest=self.stable.digest if self.stable else "",
            candidate_digest=self.candidate.digest if self.candidate else "",
        )
        self.outcomes.append((self.rollout_id, outcome))

    def batch(self, rollout_id, cursor):
        after = cursor.after if cursor is not None and cursor.instance == self.instance else 0
        listed = tuple(
            (number, outcome)
            for number, (owner, outcome) in enumerate(self.outcomes, start=1)
            if owner == rollout_id and number > after
        )
        return OutcomeBatch(self.name, self.instance, rollout_id, listed, *self.open)

    def restart(self, instance, stable):
        self.instance, self.stable, self.candidate = instance, stable, None
        self.rollout_id, self.candidate_bps, self.outcomes = "", 0, []
        self.open = (0, 0)


class KilledError(Exception):
    """The operator is killed here."""


@dataclass
class World:
    deployment: object
    inferences: list[Inference]
    published: list[Candidate] = field(default_factory=list)
    refusals: tuple[Refusal, ...] = ()
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
                if inference.name not in self.absences
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
    assert isinstance(it.status.rollout.state, WaitingForTraffic)
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
            assert isinstance(persisted, Promoting)
            assert persisted.reason == "AcceptanceBetter"
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


def refusal(name, reason, *, lasting=True):
    """One inference refuses the first candidate."""
    return Refusal(name, draft(1).digest, reason, lasting=lasting, may_retry=False)


def test_a_refused_checkpoint_is_rolled_back_by_name(deployment):
    it = world(deployment, published=[candidate(1)])
    it.refusals = (refusal("inference", "lm_head holds NaN", lasting=False),)
    it.settle()
    assert isinstance(it.status.rollout.state, Pending)
    it.refusals = (refusal("inference", "lm_head holds NaN"),)
    it.settle()
    state = it.status.rollout.state
    assert state == RolledBack("CheckpointRefused: inference: lm_head holds NaN")
    assert it.inferences[0].candidate is None


def test_a_refusal_undoes_no_promotion_that_has_begun(deployment):
    it = world(deployment, published=[candidate(1)], acceptance={draft(1).digest: 0.7})
    for _ in range(300):
        it.inferences[0].serve(it.draw, it.acceptance)
        if any(isinstance(action, PromoteDraft) for action in it.reconcile().actions):
            break
    assert it.inferences[0].stable == draft(1)
    it.refusals = (refusal("another", "its volume is not mounted"),)
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
    withheld = after(first, replace(waiting, withheld="too little is accepted"), later)
    assert (withheld.trainer.since, withheld.trainer.withheld) == (START, "too little is accepted")
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
    assert isinstance(it.status.rollout.state, WaitingForTraffic)
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
    assert isinstance(it.status.rollout.state, WaitingForTraffic)


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


def trusting(deployment, **analysis):
    """The deployment with other terms of analysis."""
    rollout = deployment.spec.rollout
    analysis = rollout.analysis.model_copy(update=analysis)
    spec = deployment.spec.model_copy(
        update={"rollout": rollout.model_copy(update={"analysis": analysis})}
    )
    return deployment.model_copy(update={"spec": spec})


def test_one_without_the_stable_draft_gets_no_share_until_it_has_it(deployment):
    it = world(deployment, count=2, published=[candidate(1)])
    lacking = it.inferences[1]
    refused = Refusal(lacking.name, draft(0).digest, "lost", lasting=True, may_retry=False)
    it.settle()
    it.run(20)
    judged = it.status.rollout.evidence.requests
    lacking.restart("i2", stable=None)
    it.refusals = (refused,)
    it.settle()
    assert (lacking.stable, lacking.candidate, lacking.candidate_bps) == (None, draft(1), 0)
    it.run(5)
    assert it.status.rollout.evidence.requests == judged + 5
    it.refusals = ()
    it.settle()
    assert (lacking.stable, lacking.candidate_bps) == (draft(0), it.inferences[0].candidate_bps)


def test_one_that_loses_its_stable_draft_loses_the_share(deployment):
    it = world(deployment, published=[candidate(1)])
    it.settle()
    it.inferences[0].stable = draft(9)
    assert it.reconcile().actions[:2] == (
        SetTraffic("inference", "chat-1", 0),
        StageDraft("inference", "stable", draft(0)),
    )


def test_a_rollout_waits_for_a_pod_without_the_stable_draft(deployment):
    it = world(deployment, count=2)
    it.settle()
    lacking = it.inferences[1]
    lacking.stable = None
    it.refusals = (Refusal(lacking.name, draft(0).digest, "lost", lasting=True, may_retry=False),)
    it.published.append(candidate(1))
    it.settle()
    assert isinstance(it.status.rollout.state, Pending)
    it.now += timedelta(minutes=10)
    it.settle()
    assert isinstance(it.status.rollout.state, WaitingForTraffic)
    assert (it.inferences[0].candidate_bps, lacking.candidate_bps) == (2000, 0)


@pytest.mark.parametrize("drafts", [(9, 1), (0, 9), (None, 1)])
def test_an_outcome_of_another_pair_of_drafts_does_not_count(deployment, drafts):
    it = world(deployment, published=[candidate(1)])
    it.settle()
    it.run(5)
    before = it.status.rollout.evidence
    stable, tried = ("" if each is None else draft(each).digest for each in drafts)
    foreign = Outcome("candidate", 2000, 20, 20, stable_digest=stable, candidate_digest=tried)
    it.inferences[0].outcomes += [("chat-1", foreign)] * 50
    it.reconcile()
    assert it.status.rollout.evidence == before


def test_two_copies_of_one_draft_are_not_told_apart_by_a_pod_without_it(deployment):
    """Its candidate requests alone would count, against plain decoding."""
    promoted = 0
    for seed in range(8):
        it = world(
            deployment,
            count=2,
            published=[candidate(1)],
            acceptance={draft(0).digest: 0.6, draft(1).digest: 0.6},
            draw=random.Random(seed),
        )
        it.settle()
        it.inferences[1].stable = None
        it.refusals = (
            Refusal("inference-1", draft(0).digest, "lost", lasting=True, may_retry=False),
        )
        it.run(120)
        promoted += it.status.stable == draft(1)
    assert promoted == 0


def test_what_died_with_an_inference_counts_once_for_its_arms(deployment):
    it = world(trusting(deployment, alpha="1e-9"), published=[candidate(1)])
    it.settle()
    it.run(10)
    it.inferences[0].open = (5, 2)
    it.reconcile()
    before = it.status.rollout.evidence
    it.inferences[0].restart("i2", stable=draft(0))
    it.reconcile()
    after = it.status.rollout.evidence
    lost = [Outcome("stable", 2000, 0, 0, "lost")] * 5 + [
        Outcome("candidate", 2000, 0, 0, "lost")
    ] * 2
    assert after == replace(reduce(observe, lost, before), crashes=1)
    it.settle()
    assert it.status.rollout.evidence == after


def test_one_that_is_gone_takes_its_requests_along_once(deployment):
    it = world(trusting(deployment, alpha="1e-9"), count=2, published=[candidate(1)])
    it.settle()
    it.run(5)
    gone = it.inferences[1]
    gone.open = (1, 1)
    it.reconcile()
    counted = it.status.rollout.evidence
    it.inferences.remove(gone)
    it.reconcile()
    lost = it.status.rollout.evidence
    assert lost == reduce(
        observe,
        [Outcome(arm, 2000, 0, 0, "lost") for arm in ("stable", "candidate")],
        counted,
    )
    # It was unseen for a moment only, and tells what became of them.
    it.inferences.append(gone)
    gone.open = (0, 0)
    for _ in range(2):
        gone.serve(it.draw, it.acceptance)
    it.reconcile()
    assert it.status.rollout.evidence == lost
    gone.serve(it.draw, it.acceptance)
    it.reconcile()
    assert it.status.rollout.evidence.requests == lost.requests + 1


def test_three_deaths_of_inferences_that_have_the_candidate_roll_it_back(deployment):
    it = world(deployment, count=2, published=[candidate(1)])
    it.settle()
    for number, inference in enumerate([*it.inferences, it.inferences[0]], start=2):
        assert it.status.rollout.is_live
        inference.restart(f"i{number}", stable=draft(0))
        it.settle()
    assert it.status.rollout.state == RolledBack("CrashHarm")
    assert [inference.candidate for inference in it.inferences] == [None, None]


def test_a_refused_read_vetoes_no_candidate_that_others_serve(deployment):
    it = world(deployment, count=2, published=[candidate(1)], acceptance={draft(1).digest: 0.7})
    it.settle()
    it.run(5)
    broken = it.inferences[1]
    broken.restart("i2", stable=draft(0))
    it.refusals = (refusal(broken.name, "its disk cannot be read"),)
    it.run(200)
    assert isinstance(it.status.rollout.state, Promoting)
    assert it.status.conditions[1].message == (
        "chat-1 is Promoting; refused by inference-1: its disk cannot be read"
    )
    assert [inference.stable for inference in it.inferences] == [draft(1), draft(0)]
    it.now += timedelta(minutes=10)
    it.reconcile()
    assert it.status.rollout.state == Promoted("AcceptanceBetter; not yet on inference-1")
    assert it.status.stable == it.inferences[0].stable == draft(1)


def test_the_queue_moves_past_one_that_cannot_be_asked(deployment):
    it = world(deployment, count=2)
    it.settle()
    it.absences = {"inference-1": "answers UNAVAILABLE"}
    it.published.append(candidate(1))
    it.settle()
    assert isinstance(it.status.rollout.state, Pending)
    it.acceptance = {draft(1).digest: 0.7}
    it.now += timedelta(minutes=10)
    it.run(200)
    assert it.inferences[0].stable == draft(1)
    it.now += timedelta(minutes=10)
    it.reconcile()
    assert it.status.rollout.state == Promoted("AcceptanceBetter; not yet on inference-1")
    it.published.append(candidate(2))
    it.settle()
    assert it.status.rollout.id == "chat-2"
    it.absences = {}
    it.settle()
    assert [inference.stable for inference in it.inferences] == [draft(1), draft(1)]


def test_no_rollout_begins_before_an_inference_serves(deployment):
    it = world(deployment, published=[candidate(1)])
    (inference,) = it.inferences
    it.settle()
    it.reconcile(Command("abort", "chat-1"))
    it.settle()
    it.inferences.clear()
    it.published.append(candidate(2))
    it.settle()
    assert (it.status.live_rollout, it.status.queue.waiting) == (None, candidate(2))
    it.inferences.append(inference)
    it.settle()
    assert it.status.rollout.id == "chat-2"


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
