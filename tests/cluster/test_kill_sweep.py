"""The operator is killed before and after each of its effects, and must end the same."""

import json
import threading
from collections import Counter
from dataclasses import dataclass

import pytest
from support.deployments import Deployments
from support.operator_process import OperatorProcess
from support.proxy import FaultyProxy, LostError
from support.story import Story

STATUS = "PATCH auroradeployments status"
# A status in which the rollout moved, and one with nothing but more evidence.
DECISION, EVIDENCE = "decision", "evidence"
# The operator's calls of pods.
CALLS = ("StageDraft", "SetTraffic", "PromoteDraft", "PruneCheckpoints")
KINDS = (
    *("PATCH serviceaccounts", "PATCH services", "PATCH networkpolicies", "PATCH secrets"),
    *("PATCH deployments", "PATCH statefulsets", "PATCH poddisruptionbudgets"),
    *("POST events", STATUS, DECISION, EVIDENCE, *CALLS),
)


@dataclass(frozen=True)
class Point:
    """Right before or right after the n-th effect of a kind, counted from 1."""

    kind: str
    number: int
    before: bool


def kind_of(write):
    if write.kind != STATUS:
        return write.kind
    changed = json.loads(write.content)["status"]
    rollout = changed.get("rollout", {})
    if rollout.keys() & {"id", "state", "step"} or "digest" in changed.get("stable", {}):
        return DECISION
    return EVIDENCE if rollout else STATUS


class Killer:
    """Counts the operator's effects on one namespace, and kills it when `is_due`."""

    def __init__(self, operator, proxy, kubelet, namespace, is_due):
        self.operator, self.namespace, self.is_due = operator, namespace, is_due
        self.before_promotion = lambda: None
        self.counts = Counter()
        self.kills = []
        # Several effects are in progress at once: each has its own number.
        self._numbers = {}
        self._killed = threading.Event()
        self._lock = threading.Lock()
        proxy.hook = self._write
        kubelet.world.on_effect = self._effect

    def revive(self):
        """Restarts the operator if it was killed."""
        if self._killed.is_set():
            self.operator.stop()
            self._killed.clear()
            # It may be killed again before it is ready.
            self.operator.restart(wait=False)
        self.operator.restart_if_lease_lost()
        if not self.operator.runs:
            assert self._killed.is_set(), f"the operator exited by itself:\n{self.operator.log()}"

    def _write(self, write, before):
        if f"/namespaces/{self.namespace}/" in write.path:
            self._reach(write, kind_of(write), before=before)

    def _effect(self, effect, before):
        if before and effect.method == "PromoteDraft":
            self.before_promotion()
        self._reach(effect, effect.method, before=before)

    def _reach(self, effect, kind, *, before):
        with self._lock:
            # Requests in progress die with the operator.
            if self._killed.is_set():
                raise LostError
            if before:
                self.counts[kind] += 1
                self._numbers[id(effect)] = self.counts[kind]
            point = Point(kind, self._numbers[id(effect)], before)
            if self.is_due(point):
                self.kills.append(point)
                self._killed.set()
                self.operator.kill()
                raise LostError


@pytest.fixture(scope="module")
def proxied(control_plane, operator_user, tmp_path_factory):
    """A proxy and the operator behind it, which runs on between tests."""
    proxy = FaultyProxy(control_plane)
    folder = tmp_path_factory.mktemp("killed")
    operator = OperatorProcess(control_plane, operator_user, folder, url=proxy.url)
    operator.start()
    yield proxy, operator
    operator.stop()
    proxy.close()


@pytest.fixture
def play(control_plane, proxied, kubelet):
    """Plays the story in a fresh namespace, killing the operator when `is_due`."""
    proxy, operator = proxied
    if not operator.runs:
        operator.restart()

    def play(is_due=lambda point: False, *, seconds=60.0):
        namespace = control_plane.create_namespace()
        control_plane.await_account(namespace)
        deployments = Deployments(control_plane, namespace)
        deployments.claim()
        killer = Killer(operator, proxy, kubelet, namespace, is_due)
        story = Story(
            deployments,
            kubelet,
            meanwhile=killer.revive,
            situation=lambda: f"{killer.kills[-8:]}\n{operator.log()}",
            seconds=seconds,
        )
        killer.before_promotion = lambda: story.before_promotion()
        summary = story.play()
        killer.is_due = lambda point: False
        killer.revive()
        operator.await_ready()
        control_plane.request("DELETE", f"/api/v1/namespaces/{namespace}")
        return summary, killer

    yield play
    proxy.reset()


@pytest.fixture(scope="module")
def recorded():
    """The result of the undisturbed run, kept for the module."""
    return {}


@pytest.fixture
def undisturbed(play, recorded):
    """The result of a run without kills, and the count of each kind of effect."""
    if not recorded:
        summary, killer = play()
        recorded.update(summary=summary, counts=killer.counts)
    return recorded


def test_every_kind_of_effect_is_swept(undisturbed):
    assert set(undisturbed["counts"]) == set(KINDS)


# Two tests a kind: one has a time limit, and a kind may have a dozen effects.
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_ends_the_same_when_killed_at_any_effect(undisturbed, play, kind, before):
    different = []
    for number in range(1, undisturbed["counts"][kind] + 1):
        point = Point(kind, number, before)
        summary, killer = play(lambda reached, point=point: reached == point)
        # There may be fewer of a kind than in the undisturbed run, but never none.
        assert killer.kills == [point] or number > 1
        if summary != undisturbed["summary"]:
            different.append((point, summary))
    assert different == []


@pytest.mark.slow
def test_ends_the_same_when_killed_after_each_decision_and_each_call(undisturbed, play):
    # Pruning is repeated after each start, so it would end every run.
    fatal = {DECISION, *CALLS} - {"PruneCheckpoints"}

    summary, killer = play(lambda reached: not reached.before and reached.kind in fatal)

    assert {point.kind for point in killer.kills} == fatal
    assert summary == undisturbed["summary"]
