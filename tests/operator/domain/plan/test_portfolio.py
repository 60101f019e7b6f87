"""What stays in memory beside the stable draft: on a promotion, a new pod, a smaller manifest."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.action import (
    PromoteDraft,
    ReleaseDraft,
    SetTraffic,
    StageDraft,
    UnstageDraft,
)
from aurora_operator.domain.plan.command import Command
from aurora_operator.domain.plan.housekeeping import housekeeping
from aurora_operator.domain.plan.observation import (
    ComponentView,
    InferenceView,
    Observation,
    Refusal,
)
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.status.deployment import Candidate, Draft, Retained, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def draft(number):
    return Draft(f"ckpt-{number}", f"sha256:{number:064x}", f"file:///store/ckpt-{number}")


INITIAL = draft(0)


@dataclass
class Pod:
    """An inference as its contract says; what it drops from its slots and does not retain is lost.

    `loads`: the drafts that it read from the store.
    """

    name: str = "pod"
    stable: Draft | None = None
    candidate: Draft | None = None
    rollout: tuple[str, int] = ("", 0)
    retained: dict[str, Draft] = field(default_factory=dict)
    shares: dict[str, int] = field(default_factory=dict)
    loads: list[str] = field(default_factory=list)

    def view(self):
        held = tuple(
            Retained(each, self.shares.get(each.digest, 0)) for each in self.retained.values()
        )
        return InferenceView(
            self.name, "i1", self.stable, self.candidate, *self.rollout, retained=held
        )

    def apply(self, action):
        match action:
            case StageDraft(slot=slot, draft=staged):
                staged = staged if staged.digest else replace(staged, digest=INITIAL.digest)
                held = [self.stable, self.candidate, *self.retained.values()]
                if staged.digest not in {each.digest for each in held if each is not None}:
                    self.loads.append(staged.checkpoint)
                if slot == "retained":
                    self.retained[staged.digest] = staged
                else:
                    setattr(self, slot, staged)
            case ReleaseDraft(digest=digest):
                del self.retained[digest]
            case UnstageDraft():
                self.candidate = None
            case SetTraffic(rollout_id=rollout_id, candidate_bps=bps):
                self.rollout = (rollout_id, bps)
            case PromoteDraft(digest=digest):
                if self.stable.digest != digest:
                    assert self.candidate.digest == digest
                    self.stable, self.candidate, self.rollout = self.candidate, None, ("", 0)


@dataclass
class World:
    deployment: object
    pods: list[Pod]
    initial: Draft | None = INITIAL
    disk: str = field(default_factory=lambda: status_to_json(Status()))
    refusals: tuple[Refusal, ...] = ()
    now: datetime = NOW

    @property
    def status(self):
        return status_from_json(self.disk)

    @property
    def retained(self):
        return [each.draft.checkpoint for each in self.status.retained]

    def reconcile(self, command=None, published=()):
        self.now += timedelta(seconds=1)
        names = frozenset(pod.name for pod in self.pods)
        observed = Observation(
            initial=self.initial,
            inferences=tuple(pod.view() for pod in self.pods),
            expected=names,
            existing=names,
            published=published,
            refusals=self.refusals,
            command=command,
            components=(ComponentView("inference", ready=True),),
        )
        decision = plan(self.deployment, self.status, observed, self.now)
        is_news = decision.status != self.status
        self.disk = status_to_json(decision.status)
        for action in decision.actions:
            next(pod for pod in self.pods if pod.name == action.inference).apply(action)
        return bool(is_news or decision.actions)

    def settle(self):
        for _ in range(20):
            if not self.reconcile():
                return
        raise AssertionError("does not settle")

    def promote(self, number):
        """Publishes a draft and promotes it by command."""
        self.reconcile(published=(Candidate(draft(number), number, f"{number}-0"),))
        self.settle()
        self.reconcile(Command("promote", self.status.rollout.id))
        self.settle()
        assert self.status.stable == draft(number)


def with_portfolio(deployment, retain):
    manifest = json.loads(json.dumps(deployment))
    manifest["spec"]["draft"] = {"portfolio": {"retain": retain}} if retain else {}
    return parse_manifest(json.dumps(manifest), "test")


@pytest.fixture
def manifest():
    return {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": "chat"},
        "spec": {
            "target": {"uri": "file:///models/target"},
            "buffer": {"embedded": {}},
            "modelStore": {"pvc": {"claimName": "models"}},
        },
    }


@pytest.fixture
def it(manifest):
    world = World(with_portfolio(manifest, 3), [Pod(stable=INITIAL)])
    world.settle()
    return world


def test_a_promotion_retains_the_former_stable_draft_without_reading_it_again(it):
    assert it.retained == []
    it.promote(1)
    assert it.retained == ["ckpt-0"]
    assert list(it.pods[0].retained.values()) == [INITIAL]
    assert it.pods[0].loads == ["ckpt-1"]


def test_the_one_that_serves_least_makes_room_but_never_the_initial_one(it):
    it.promote(1)
    it.promote(2)
    assert it.retained == ["ckpt-1", "ckpt-0"]
    it.pods[0].shares = {draft(1).digest: 62, INITIAL.digest: 1}
    it.settle()
    assert [each.share_percent for each in it.status.retained] == [60, 0]
    it.promote(3)
    # What has served until now serves more than the one before it.
    assert set(it.retained) == {"ckpt-1", "ckpt-0"}
    assert set(it.pods[0].retained) == {INITIAL.digest, draft(1).digest}


def test_a_share_is_stored_in_steps(it):
    it.promote(1)
    for reported, stored in ((58, 60), (62, 60), (63, 60), (66, 65), (100, 100)):
        it.pods[0].shares = {INITIAL.digest: reported}
        it.settle()
        assert it.status.retained[0].share_percent == stored


def test_a_new_pod_gets_all_of_them(it):
    it.promote(1)
    it.promote(2)
    it.pods.append(Pod("new"))
    it.settle()
    assert it.pods[1].stable == draft(2)
    assert set(it.pods[1].retained) == {INITIAL.digest, draft(1).digest}


def test_without_a_portfolio_nothing_is_retained_and_a_smaller_one_releases(it, manifest):
    it.promote(1)
    it.promote(2)
    it.deployment = with_portfolio(manifest, 2)
    it.settle()
    assert it.retained == ["ckpt-0"]
    assert list(it.pods[0].retained) == [INITIAL.digest]
    it.deployment = with_portfolio(manifest, None)
    it.settle()
    assert it.status.retained == ()
    assert it.pods[0].retained == {}
    it.promote(3)
    assert it.pods[0].retained == {}


def test_one_is_the_stable_draft_alone(manifest):
    it = World(with_portfolio(manifest, 1), [Pod(stable=INITIAL)])
    it.settle()
    it.promote(1)
    assert it.status.retained == ()
    assert it.pods[0].retained == {}


def test_an_initial_draft_whose_digest_is_in_its_files_alone_is_found(manifest):
    it = World(with_portfolio(manifest, 3), [Pod()], initial=replace(INITIAL, digest=""))
    # As a deployment that is created anew: an earlier one's draft is stable.
    it.disk = status_to_json(Status(stable=draft(5)))
    it.settle()
    assert [each.draft for each in it.status.retained] == [INITIAL]
    assert list(it.pods[0].retained.values()) == [INITIAL]
    assert it.pods[0].loads == ["ckpt-5", "ckpt-0"]


def test_a_retained_draft_that_cannot_be_loaded_holds_up_no_rollout(it):
    it.promote(1)
    it.refusals = (Refusal("new", INITIAL.digest, "gone", lasting=True, may_retry=False),)
    it.pods.append(Pod("new"))
    it.settle()
    assert it.pods[1].retained == {}
    it.promote(2)


def test_their_files_are_kept(it):
    it.promote(1)
    it.promote(2)
    needed = housekeeping(2, it.status, INITIAL).needed
    assert {INITIAL.digest, draft(1).digest, draft(2).digest} <= needed
