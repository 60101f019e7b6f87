"""Pairs of time blocks in a rollout: which count, how often, and which arm begins where."""

import json
import random
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.manifest import changed

from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.plan.action import SetTraffic
from aurora_operator.domain.plan.observation import InferenceView, Observation, OutcomeBatch
from aurora_operator.domain.plan.plan import plan
from aurora_operator.domain.rollout.outcome import Block, Pair
from aurora_operator.domain.status.deployment import Candidate, Draft, Queue, Status
from aurora_operator.domain.status.status_json import status_from_json, status_to_json

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STABLE = Draft("stable", "sha256:a", "file:///a")
CANDIDATE = Draft("candidate", "sha256:b", "file:///b")
NAMES = ("pod-1", "pod-2", "pod-3")


@pytest.fixture
def deployment():
    manifest = changed("spec.rollout.steps", [{"weightPercent": 50}])
    manifest["spec"]["rollout"]["analysis"] = {"method": "Canary"}
    return parse_manifest(json.dumps(manifest), "test")


def pair(draw, gain, *, stable="sha256:a", candidate="sha256:b"):
    scores = (0.6 + draw.gauss(0, 0.01), 0.6 + gain + draw.gauss(0, 0.01))
    blocks = (Block(40, 0, 1000, round(1000 * score)) for score in scores)
    return Pair(*blocks, stable, candidate)


def observation(rollout_id="", bps=0, batches=()):
    views = tuple(
        InferenceView(name, "1", STABLE, CANDIDATE if rollout_id else None, rollout_id, bps)
        for name in NAMES
    )
    return Observation(
        inferences=views, expected=frozenset(NAMES), existing=frozenset(NAMES), batches=batches
    )


@pytest.fixture
def begun(deployment):
    """A rollout that waits for its first pair, and the actions that began it."""
    status = replace(Status(), stable=STABLE, queue=Queue(1, Candidate(CANDIDATE, 1)))
    status = plan(deployment, status, observation(), NOW).status
    actions = plan(deployment, status, observation(), NOW).actions
    status = plan(deployment, status, observation("chat-1", 5000), NOW).status
    return status, actions


def test_neighbours_begin_with_different_arms(begun):
    _, actions = begun
    splits = [action for action in actions if isinstance(action, SetTraffic)]

    assert [(split.inference, split.crossed) for split in splits] == [
        ("pod-1", False),
        ("pod-2", True),
        ("pod-3", False),
    ]


def judged(deployment, status, listed, *, turns):
    """The status after so many looks at the same list, stored in between."""
    batches = (OutcomeBatch("pod-1", "1", "chat-1", tuple(listed)),)
    for _ in range(turns):
        status = plan(deployment, status, observation("chat-1", 5000, batches), NOW).status
        status = status_from_json(status_to_json(status))
    return status


def test_a_better_candidate_is_promoted_and_a_worse_one_rolled_back(deployment, begun):
    draw = random.Random(1)
    better = [(2 * number, pair(draw, 0.03)) for number in range(1, 41)]
    worse = [(2 * number, pair(draw, -0.03)) for number in range(1, 41)]

    found = judged(deployment, begun[0], better, turns=3)
    assert type(found.rollout.state).__name__ == "Promoting"
    assert found.rollout.evidence.method == "switchback-betting/v1"
    assert found.rollout.evidence.pairs == 40
    found = judged(deployment, begun[0], worse, turns=3)
    assert type(found.rollout.state).__name__ == "RolledBack"


def test_each_pair_of_this_rollouts_drafts_counts_once(deployment, begun):
    draw = random.Random(2)
    listed = [(2, pair(draw, 0.03)), (4, pair(draw, 0.03)), (6, pair(draw, 0.03, stable="other"))]

    found = judged(deployment, begun[0], listed[:1], turns=2)
    assert found.rollout.evidence.pairs == 1
    found = judged(deployment, found, listed, turns=3)
    assert found.rollout.evidence.pairs == 2
    assert found.rollout.cursors["pod-1"].after == 6


def test_the_draft_that_an_engine_began_with_is_the_manifests(deployment):
    begun_with = Draft("draft", "sha256:a", "")
    views = (InferenceView("pod-1", "1", begun_with),)
    initial = Draft("draft", "", "pvc://models/draft")
    observed = Observation(inferences=views, expected=frozenset({"pod-1"}), initial=initial)

    status = plan(deployment, Status(), observed, NOW).status
    assert status.stable == Draft("draft", "sha256:a", "pvc://models/draft")
