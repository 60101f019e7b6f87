"""The shared reconcile loop over a fleet of inferences that come, restart, leave and fail."""

import asyncio
import json
from dataclasses import dataclass, field, replace
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_common.errors import CheckpointError, ConflictError, NotFoundError, UnavailableError
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.action import PromoteDraft, SetTraffic, StageDraft, UnstageDraft
from aurora_operator.domain.plan.command import Command, parse_request
from aurora_operator.domain.plan.observation import (
    ComponentView,
    InferenceView,
    OutcomeBatch,
    ReplayBatch,
)
from aurora_operator.domain.rollout.evidence import Evidence, observe
from aurora_operator.domain.rollout.outcome import Outcome
from aurora_operator.domain.rollout.replay import Replay, Score
from aurora_operator.domain.rollout.state import (
    Pending,
    Promoted,
    RolledBack,
    RolloutPlan,
    WaitingForTraffic,
)
from aurora_operator.domain.status.deployment import Candidate, Draft, Rollout, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json
from aurora_operator.reconcile.outbox import Outbox
from aurora_operator.reconcile.reconciler import Generation, Reconciler, Result
from aurora_operator.reconcile.reports import Reports

STABLE = Draft("ckpt-0", "sha256:0", "file:///store/ckpt-0")
CANDIDATE = Draft("ckpt-1", "sha256:1", "file:///store/ckpt-1")
# Never decides, so that the evidence can be compared.
ENDLESS = RolloutPlan((50,), "1e-300", 0, 1_000_000, 1e9)
MANIFEST = {
    "apiVersion": "aurora.dev/v1alpha1",
    "kind": "AuroraDeployment",
    "metadata": {"name": "chat"},
    "spec": {
        "target": {"uri": "file:///models/target"},
        "buffer": {"embedded": {}},
        "modelStore": {"pvc": {"claimName": "models"}},
    },
}


def outcome(arm, bps, accepted):
    """A request that could have drawn either draft."""
    return Outcome(
        arm, bps, 20, accepted, stable_digest=STABLE.digest, candidate_digest=CANDIDATE.digest
    )


@dataclass
class Pod:
    """One inference, by its contract."""

    name: str
    instance: str = "i1"
    leaving: bool = False
    ready: bool = True
    # Raised by its calls.
    error: Exception | None = None
    stable: Draft | None = None
    candidate: Draft | None = None
    rollout_id: str = ""
    candidate_bps: int = 0
    outcomes: list = field(default_factory=list)
    applied: list = field(default_factory=list)
    concurrent: asyncio.Barrier | None = None

    async def view(self):
        if self.concurrent is not None:
            await self.concurrent.wait()
        if self.error is not None:
            raise self.error
        return InferenceView(
            self.name,
            self.instance,
            self.stable,
            self.candidate,
            self.rollout_id,
            self.candidate_bps,
        )

    async def outcomes_after(self, rollout_id, cursor):
        if self.error is not None:
            raise self.error
        after = cursor.after if cursor is not None and cursor.instance == self.instance else 0
        listed = self.outcomes if rollout_id == self.rollout_id else []
        numbered = tuple(enumerate(listed, start=1))
        return OutcomeBatch(self.name, self.instance, rollout_id, numbered[after:])

    async def apply(self, action):
        if self.error is not None:
            raise self.error
        assert not self.leaving
        self.applied.append(action)
        match action:
            case StageDraft(slot="stable", draft=draft):
                self.stable = draft
            case StageDraft(draft=draft):
                self.candidate = draft
            case UnstageDraft():
                self.candidate = None
            case SetTraffic(rollout_id=rollout_id, candidate_bps=bps):
                self.rollout_id, self.candidate_bps = rollout_id, bps
            case PromoteDraft():
                self.stable, self.candidate = self.candidate, None
                self.rollout_id, self.candidate_bps = "", 0


class PodInference:
    """A pod as the reconciler's Inference."""

    def __init__(self, pod):
        self.pod = pod
        self.name, self.leaving = pod.name, pod.leaving
        self.view, self.apply, self.outcomes = pod.view, pod.apply, pod.outcomes_after


@dataclass
class Fleet:
    pods: list = field(default_factory=list)
    judge: object = field(default_factory=lambda: Judge())

    @property
    def inferences(self):
        return [PodInference(pod) for pod in self.pods]

    @property
    def expected(self):
        return frozenset(pod.name for pod in self.pods if pod.ready and not pod.leaving)

    @property
    def existing(self):
        return frozenset(pod.name for pod in self.pods)

    @property
    def components(self):
        return (ComponentView("inference", ready=bool(self.expected)),)

    @property
    def problems(self):
        return ()

    @property
    def scale(self):
        return None


@dataclass
class Store:
    content: str = field(default_factory=lambda: status_to_json(Status()))
    saves: int = 0
    conflict: bool = False
    killed: bool = False

    @property
    def status(self):
        return status_from_json(self.content)

    async def save(self, status):
        if self.conflict:
            raise ConflictError("another status was stored meanwhile")
        self.content = status_to_json(status)
        self.saves += 1
        if self.killed:
            raise KilledError


class KilledError(Exception):
    """The operator ends here, with the status stored and no action done."""


def reconciler(fleet, store, *, initial=None, reports=None):
    deployment = parse_manifest(json.dumps(MANIFEST), "test")
    return Reconciler(
        Generation(1, deployment, initial),
        store.status,
        store=store,
        fleet=fleet,
        on_change=lambda: None,
        reports=reports,
    )


async def settle(it):
    for _ in range(20):
        if not (await it.reconcile()).moved:
            return
    raise AssertionError("does not settle")


async def test_an_unchanged_status_is_not_written():
    store = Store()
    it = reconciler(Fleet([Pod("a", stable=STABLE), Pod("b", stable=STABLE)]), store)
    await settle(it)
    saves = store.saves
    assert await it.reconcile() == Result(moved=False, live=False)
    await it.reconcile()
    assert store.saves == saves


async def test_a_live_rollout_without_traffic_is_not_written():
    store = Store()
    it = reconciler(Fleet([Pod("a", stable=STABLE)]), store)
    it.offer(Candidate(CANDIDATE, 1))
    await settle(it)
    saves = store.saves
    assert await it.reconcile() == Result(moved=False, live=True)
    assert store.saves == saves


class Judge:
    """Has scored so many requests, in each of which the candidate saves a tenth."""

    def __init__(self, scored=0):
        self.scored = scored
        self.asked = []
        self.error = None

    async def replay(self, comparison):
        self.asked.append(comparison)
        if self.error is not None:
            raise self.error
        start = int(comparison.after.partition("-")[0] or 0)
        scores = tuple(
            Score(f"{number}-0", "", 50, 20.0, 18.0)
            for number in range(start + 1, min(self.scored, start + 7) + 1)
        )
        last = scores[-1].id if scores else comparison.after
        return ReplayBatch(comparison.rollout_id, scores, last)


async def test_replay_goes_on_where_the_status_says():
    judge, store = Judge(scored=30), Store()
    fleet = Fleet([Pod("a", stable=STABLE)], judge)
    it = reconciler(fleet, store)
    it.offer(Candidate(CANDIDATE, 1, "12-0"))
    for _ in range(3):
        await settle(it)
    first, second, *_ = judge.asked
    assert (first.stable, first.candidate, first.after) == (STABLE, CANDIDATE, "12-0")
    assert (first.begin, second.begin) == ("12-0", "12-0")
    assert (first.rollout_id, first.greedy_drafts) == ("chat-1", False)
    assert second.after > first.after
    # Another operator knows nothing but the status.
    again = reconciler(fleet, store)
    judge.asked.clear()
    for _ in range(5):
        await settle(again)
    assert judge.asked[0].after != "12-0"
    assert again.status.rollout.evidence.replay.requests == 18
    assert again.status.rollout.evidence.replay.after == "30-0"
    assert again.status.rollout.evidence.replay.log_e > 0


async def test_a_judge_that_is_away_changes_nothing_and_is_named_once_it_lasts(monkeypatch):
    judge = Judge()
    it = reconciler(Fleet([Pod("a", stable=STABLE)], judge), Store())
    it.offer(Candidate(CANDIDATE, 1, "12-0"))
    judge.error = UnavailableError("trainer: connection refused")
    await settle(it)
    await settle(it)
    assert it.status.rollout.evidence.replay == Replay("12-0", begin="12-0")
    monkeypatch.setattr("aurora_common.lasting.LASTING_SECONDS", 0.0)
    await it.reconcile()
    degraded = it.status.conditions[2]
    assert degraded.reason == "ComponentFailing"
    assert degraded.message == ("recorded requests cannot be replayed: trainer: connection refused")
    judge.error = None
    await settle(it)
    assert not it.status.conditions[2].status


async def test_all_are_observed_at_once():
    together = asyncio.Barrier(3)
    pods = [Pod(name, stable=STABLE, concurrent=together) for name in "abc"]
    async with asyncio.timeout(5):
        await reconciler(Fleet(pods), Store()).reconcile()


async def test_the_first_draft_is_staged_and_adopted():
    pods = [Pod("a"), Pod("b")]
    it = reconciler(Fleet(pods), Store(), initial=STABLE)
    await settle(it)
    assert it.status.stable == STABLE
    assert [pod.stable for pod in pods] == [STABLE, STABLE]
    pods.append(Pod("c"))
    await settle(it)
    assert pods[2].stable == STABLE


async def test_those_still_without_the_first_draft_get_it_at_once():
    # An operator killed while staging finds one that has it, and one that does not.
    pods = [Pod("a", stable=STABLE), Pod("b")]
    it = reconciler(Fleet(pods), Store(), initial=STABLE)
    await settle(it)
    assert pods[1].stable == STABLE


async def test_one_that_refuses_the_first_draft_is_named():
    pod = Pod("a")
    fleet = Fleet([pod])
    it = reconciler(fleet, Store(), initial=STABLE)

    async def refuse(action):
        raise CheckpointError("draft holds NaN")

    pod.apply = refuse
    await it.reconcile()
    await it.reconcile()
    degraded = it.status.conditions[2]
    assert (degraded.reason, degraded.message) == ("StableDraftRefused", "a: draft holds NaN")


@pytest.fixture
def impatient(monkeypatch):
    """A refused draft is tried again at once."""
    monkeypatch.setattr("aurora_operator.reconcile.dispatcher._RETRY_SECONDS", 0.0)


@pytest.mark.parametrize(("refusals", "state"), [(2, WaitingForTraffic), (3, RolledBack)])
async def test_a_refused_read_is_tried_again_before_it_is_a_verdict(impatient, refusals, state):
    pod = Pod("a", stable=STABLE)
    it = reconciler(Fleet([pod]), Store())
    await settle(it)
    load, left = pod.apply, [refusals]

    async def refuse(action):
        if isinstance(action, StageDraft) and left[0]:
            left[0] -= 1
            raise CheckpointError("input/output error")
        await load(action)

    pod.apply = refuse
    it.offer(Candidate(CANDIDATE, 1))
    for _ in range(10):
        await it.reconcile()
    assert isinstance(it.status.rollout.state, state)
    if state is RolledBack:
        assert it.status.rollout.state.reason == "CheckpointRefused: a: input/output error"


async def test_a_refused_draft_is_not_tried_again_at_once():
    pod, tried = Pod("a", stable=STABLE), []
    it = reconciler(Fleet([pod]), Store())
    await settle(it)

    async def refuse(action):
        tried.append(action)
        raise CheckpointError("input/output error")

    pod.apply = refuse
    it.offer(Candidate(CANDIDATE, 1))
    for _ in range(10):
        await it.reconcile()
    assert len(tried) == 1
    assert isinstance(it.status.rollout.state, Pending)


async def test_one_that_fails_holds_the_rollout_and_the_rest_proceed():
    pods = [Pod("a", stable=STABLE), Pod("b", stable=STABLE)]
    it = reconciler(Fleet(pods), Store())
    await settle(it)
    pods[1].error = UnavailableError("answers UNAVAILABLE: connection refused")
    it.offer(Candidate(CANDIDATE, 1))
    for _ in range(5):
        await it.reconcile()
    assert pods[0].candidate == CANDIDATE
    assert isinstance(it.status.rollout.state, Pending)
    assert it.status.conditions[1].message == (
        "chat-1 is Pending; waiting for b: answers UNAVAILABLE: connection refused"
    )
    pods[1].error = None
    await settle(it)
    assert isinstance(it.status.rollout.state, WaitingForTraffic)


async def test_one_that_cannot_load_the_candidate_now_is_named():
    pods = [Pod("a", stable=STABLE), Pod("b", stable=STABLE)]
    it = reconciler(Fleet(pods), Store())
    await settle(it)

    async def fail(action):
        raise UnavailableError("answers DEADLINE_EXCEEDED: Deadline Exceeded")

    pods[1].apply = fail
    it.offer(Candidate(CANDIDATE, 1))
    for _ in range(5):
        result = await it.reconcile()
    assert result == Result(moved=False, live=True)
    assert "waiting for b: answers DEADLINE_EXCEEDED" in it.status.conditions[1].message


@pytest.fixture
def hasty(monkeypatch):
    """A reconcile that waits for no action."""
    monkeypatch.setattr("aurora_operator.reconcile.dispatcher._WAIT_SECONDS", 0.02)


async def test_one_that_loads_slowly_delays_no_other(hasty):
    pods = [Pod("a", stable=STABLE), Pod("b", stable=STABLE)]
    it = reconciler(Fleet(pods), Store())
    await settle(it)
    loaded, apply = asyncio.Event(), pods[1].apply

    async def load(action):
        await loaded.wait()
        await apply(action)

    pods[1].apply = load
    it.offer(Candidate(CANDIDATE, 1))
    for _ in range(4):
        await it.reconcile()
    assert pods[0].candidate_bps > 0
    assert it.status.conditions[1].message == (
        "chat-1 is Pending; waiting for b: it is loading a draft"
    )
    await it.command(Command("abort"))
    await it.reconcile()
    await it.reconcile()
    assert pods[0].candidate is None
    loaded.set()
    for _ in range(4):
        await it.reconcile()
    # Staging was in progress; the traffic share was not, and must not follow the abort.
    assert [type(action) for action in pods[1].applied] == [StageDraft, UnstageDraft]


def degraded(it):
    return next(each for each in it.status.conditions if each.type == "Degraded")


async def test_a_failure_that_lasts_is_named(monkeypatch):
    pods = [Pod("a", stable=STABLE), Pod("b", stable=STABLE)]
    it = reconciler(Fleet(pods), Store())
    await settle(it)
    pods[1].error = UnavailableError("certificate is not yet valid")
    await it.reconcile()
    assert not degraded(it).status

    monkeypatch.setattr("aurora_common.lasting.LASTING_SECONDS", 0.0)
    await it.reconcile()
    assert (degraded(it).status, degraded(it).reason) == (True, "ComponentFailing")
    assert degraded(it).message == (
        "inference: pod b cannot be controlled: certificate is not yet valid"
    )

    pods[1].error = None
    await it.reconcile()
    assert not degraded(it).status


async def test_a_draft_that_takes_long_to_load_is_no_failure(hasty, monkeypatch):
    monkeypatch.setattr("aurora_common.lasting.LASTING_SECONDS", 0.0)
    pod = Pod("a", stable=STABLE)
    it = reconciler(Fleet([pod]), Store())
    await settle(it)

    async def load(action):
        await asyncio.Event().wait()

    pod.apply = load
    it.offer(Candidate(CANDIDATE, 1))
    for _ in range(4):
        await it.reconcile()
    assert it.status.conditions[1].message.endswith("waiting for a: it is loading a draft")
    assert not degraded(it).status
    await it.close()


async def test_closing_cancels_actions_in_progress(hasty):
    pod = Pod("a")
    it = reconciler(Fleet([pod]), Store(), initial=STABLE)

    async def load(action):
        await asyncio.Event().wait()

    pod.apply = load
    result = await it.reconcile()
    assert result == Result(moved=False, live=True)
    await it.close()


async def test_one_that_leaves_reports_its_outcomes_and_delays_nothing():
    pods = [Pod("a", stable=STABLE), Pod("b", stable=STABLE)]
    it = reconciler(Fleet(pods), Store())
    it.offer(Candidate(CANDIDATE, 1))
    await settle(it)
    pods[1].leaving = True
    pods[1].outcomes.append(outcome("candidate", 2000, 10))
    done = len(pods[1].applied)
    await it.reconcile()
    assert it.status.rollout.evidence.requests == 1
    await it.command(Command("promote"))
    await settle(it)
    assert it.status.rollout.state == Promoted("Commanded")
    assert len(pods[1].applied) == done


async def test_a_conflict_changes_nothing_until_the_status_is_reloaded():
    pod, store = Pod("a", stable=STABLE), Store()
    it = reconciler(Fleet([pod]), store)
    await settle(it)
    it.offer(Candidate(CANDIDATE, 1))
    before = it.status
    store.conflict = True
    with pytest.raises(ConflictError):
        await it.reconcile()
    assert it.status == before
    assert pod.applied == []
    store.conflict = False
    it.status = store.status
    await settle(it)
    assert pod.candidate == CANDIDATE


async def test_a_direct_command_that_does_not_fit_is_refused_at_once():
    it = reconciler(Fleet([Pod("a", stable=STABLE)]), Store())
    with pytest.raises(ConflictError, match="nothing to abort"):
        await it.command(Command("abort"))
    it.offer(Candidate(CANDIDATE, 1))
    await settle(it)
    with pytest.raises(NotFoundError, match="'chat-7' is not in progress"):
        await it.command(Command("abort", "chat-7"))


async def test_an_annotated_command_is_carried_out_and_answered_together():
    store = Store()
    it = reconciler(Fleet([Pod("a", stable=STABLE)]), store)
    it.offer(Candidate(CANDIDATE, 1))
    await settle(it)
    order = parse_request("promote/chat-1")
    saves = store.saves
    await it.reconcile(order)
    assert store.saves == saves + 1
    assert store.status.last_command.outcome == "Done"
    await settle(it)
    assert store.status.stable == CANDIDATE
    # The annotation is still there.
    await it.reconcile(order)
    assert store.status.last_command.outcome == "Done"


class Life:
    """A rollout under arbitrary events; the outcomes that were reported, each once."""

    def __init__(self):
        self.store = Store()
        rollout = Rollout("chat-1", Candidate(CANDIDATE, 1), ENDLESS, Pending())
        self.store.content = status_to_json(Status(stable=STABLE, rollout=rollout))
        self.fleet = Fleet([Pod("pod-0", stable=STABLE)])
        self.reported, self.known = [], set()
        # Pods that the operator does not see for a while, as after its own restart.
        self.hidden = []
        self.count = 1
        self.restart_operator()

    def restart_operator(self):
        self.operator = reconciler(self.fleet, self.store)

    def happen(self, event, choice):
        pods = self.fleet.pods
        pod = pods[choice % len(pods)] if pods else None
        if event == "appear":
            pods.append(Pod(f"pod-{self.count}", stable=STABLE))
            self.count += 1
        elif event == "operator":
            self.restart_operator()
        elif event == "shown":
            pods += self.hidden
            self.hidden = []
        elif pod is None:
            return
        elif event == "restart":
            anew = Pod(pod.name, instance=f"{pod.instance}'", leaving=pod.leaving)
            pods[choice % len(pods)] = anew
        elif event == "drain":
            pod.leaving = True
        elif event == "gone":
            pods.remove(pod)
        elif event == "hidden":
            pods.remove(pod)
            self.hidden.append(pod)
        elif event == "away":
            pod.error = None if pod.error else UnavailableError("is away")
        elif pod.candidate_bps:
            for number in range(1 + choice % 3):
                arm = "candidate" if (choice + number) % 2 else "stable"
                accepted = (choice * 7 + number) % 21
                pod.outcomes.append(outcome(arm, pod.candidate_bps, accepted))

    def tell(self):
        """What a reconcile sees for the first time, in the order of its calls."""
        for pod in self.fleet.pods:
            if pod.error is not None or pod.rollout_id != "chat-1":
                continue
            for number, outcome in enumerate(pod.outcomes):
                place = (pod.name, pod.instance, number)
                if place not in self.known:
                    self.known.add(place)
                    self.reported.append(outcome)

    async def reconcile(self, fate):
        if fate == "conflict":
            self.store.conflict = True
            known, reported = set(self.known), list(self.reported)
            try:
                await self.operator.reconcile()
            except ConflictError:
                self.known, self.reported = known, reported
                self.operator.status = self.store.status
            else:
                # Nothing was stored, so nothing new was reported.
                assert self.store.status == self.operator.status
            self.store.conflict = False
            return
        self.store.killed = fate == "killed"
        self.tell()
        try:
            await self.operator.reconcile()
        except KilledError:
            self.restart_operator()
        self.store.killed = False


EVENTS = (
    "appear",
    "restart",
    "drain",
    "gone",
    "away",
    "hidden",
    "shown",
    "operator",
    *("serve",) * 5,
)
STEP = st.one_of(
    st.tuples(st.sampled_from(EVENTS), st.integers(0, 20)),
    st.tuples(
        st.just("reconcile"), st.sampled_from(("well", "well", "well", "conflict", "killed"))
    ),
)


@given(st.lists(STEP, min_size=40, max_size=80))
@settings(max_examples=100, deadline=None)
def test_whatever_happens_each_outcome_counts_once(steps):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("aurora_operator.domain.rollout.state.MAX_CRASHES", 1_000)
        _whatever_happens(steps)


def _whatever_happens(steps):
    async def live():
        life = Life()
        await life.reconcile("well")
        await life.reconcile("well")
        for event, choice in steps:
            if event == "reconcile":
                await life.reconcile(choice)
            else:
                life.happen(event, choice)
        await life.reconcile("well")
        return life

    life = asyncio.run(live())
    rollout = life.store.status.rollout
    assert rollout.is_live
    expected = reduce(observe, life.reported, Evidence())
    assert replace(rollout.evidence, crashes=0) == expected


class Archive:
    """Keeps the records of ended rollouts, unless it is away."""

    def __init__(self):
        self.kept = []
        self.away = False

    def reports(self):
        self.sent = asyncio.Event()
        return Reports(records=Outbox("records", self._keep, on_sent=self.sent.set))

    async def _keep(self, report):
        if self.away:
            raise UnavailableError("nobody listens")
        self.kept.append(report)


async def aborted(it):
    it.offer(Candidate(CANDIDATE, 1))
    await settle(it)
    await it.command(Command("abort"))
    await settle(it)


async def test_an_ended_rollout_is_recorded_once_with_its_evidence():
    archive, store = Archive(), Store()
    it = reconciler(Fleet([Pod("a", stable=STABLE)]), store, reports=archive.reports())
    await aborted(it)
    await archive.sent.wait()
    await settle(it)
    assert store.status.unrecorded == 0
    (report,) = archive.kept
    assert (report.verdict, report.stable) == (store.status.history[0], STABLE)
    assert report.rollout.state == RolledBack("Aborted")
    await settle(it)
    assert len(archive.kept) == 1


async def test_a_restarted_operator_records_what_was_left():
    archive, store = Archive(), Store()
    archive.away = True
    fleet = Fleet([Pod("a", stable=STABLE)])
    it = reconciler(fleet, store, reports=archive.reports())
    await aborted(it)
    assert store.status.unrecorded == 1
    await it.close()
    archive.away = False
    again = reconciler(fleet, store, reports=archive.reports())
    await settle(again)
    await archive.sent.wait()
    await settle(again)
    assert store.status.unrecorded == 0
    assert [report.verdict.id for report in archive.kept] == ["chat-1"]


async def test_an_archive_that_is_away_holds_nothing_up():
    archive, store = Archive(), Store()
    archive.away = True
    it = reconciler(Fleet([Pod("a", stable=STABLE)]), store, reports=archive.reports())
    await aborted(it)
    it.offer(Candidate(CANDIDATE, 2))
    await settle(it)
    assert store.status.rollout.id == "chat-2"
    assert store.status.live_rollout is not None
    await it.close()
