"""An AuroraDeployment that the first version stored, under the definition and operator of today."""

import json
from pathlib import Path

import pytest
import yaml
from support.deployments import wait_until

TESTS = Path(__file__).parents[1]
FIRST = Path(__file__).with_name("stored") / "first-definition.yaml"
# As operators of that time wrote it: analyzing, with evidence, a queue and a history.
STATUS = json.loads((TESTS / "operator/domain/status/stored.json").read_text())[3]
OBJECTS = "/apis/aurora.dev/v1alpha1/namespaces/{}/auroradeployments"
SPEC = {
    "target": {"uri": "pvc://models/target"},
    "draft": {"initialCheckpoint": {"uri": "pvc://models/draft-0"}},
    "replicas": 2,
    "inference": {"maxBatch": 4, "podTemplate": {"metadata": {"labels": {"team": "a"}}}},
    "buffer": {"embedded": {"storage": "30Gi"}, "retention": {"maxAge": "12h"}},
    "modelStore": {"pvc": {"claimName": "models"}},
    "rollout": {
        "steps": [{"weightPercent": 5}, {"weightPercent": 20}],
        "analysis": {"minRequests": 500},
    },
}


@pytest.fixture
def first_version(control_plane):
    """The first definition; today's is installed again in the end."""
    control_plane.install(yaml.safe_load(FIRST.read_text()))
    yield control_plane
    control_plane.install_aurora_deployments()


@pytest.fixture
def stored(first_version, deployments):
    """The deployment as the first version stored it."""
    objects = OBJECTS.format(deployments.namespace)
    body = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": "chat"},
        "spec": SPEC,
    }

    # The API server follows a changed definition within a moment.
    def has_first_defaults():
        found = first_version.request("POST", f"{objects}?dryRun=All", body)
        return found["spec"]["buffer"]["retention"].get("maxBytes") == "16Gi"

    wait_until(has_first_defaults)
    made = first_version.request("POST", objects, body)
    made["status"] = STATUS
    made = first_version.request("PUT", f"{objects}/chat/status", made)
    assert made["status"] == STATUS
    return made


def holds(found, stored):
    """Whether all that was stored is found, beside the defaults of what came later."""
    if isinstance(stored, dict):
        return all(key in found and holds(found[key], value) for key, value in stored.items())
    if isinstance(stored, list):
        return len(found) == len(stored) and all(map(holds, found, stored))
    return found == stored


def test_it_is_defaulted_reconciled_and_loses_nothing(
    stored, first_version, deployments, kubelet, operator
):
    # Its evidence is what was stored.
    kubelet.world.requests_per_poll = 0
    first_version.install_aurora_deployments()
    wait_until(lambda: "restorePolicy" in deployments.get()["spec"]["modelStore"])

    read = deployments.get()
    assert holds(read["status"], STATUS)
    assert (read["metadata"]["uid"], read["metadata"]["generation"]) == (
        stored["metadata"]["uid"],
        stored["metadata"]["generation"],
    )
    spec = read["spec"]
    # What it said and what was defaulted then stand; what came later has its default.
    assert (spec["suspend"], spec["rollout"]["watchAfterPromotion"]) == (False, "1h")
    assert spec["buffer"]["retention"] == {"maxAge": "12h", "maxBytes": "16Gi"}
    assert spec["inference"]["podTemplate"]["metadata"]["labels"] == {"team": "a"}
    assert spec["rollout"]["steps"] == SPEC["rollout"]["steps"]

    operator.start(namespaces=[deployments.namespace])
    status = deployments.await_status(
        lambda status: status.get("replicas") == 2 and status.get("readyReplicas") == 2, seconds=60
    )
    # Its rollout was paused by command, so that nothing moves on by itself.
    for key in ("queue", "paused", "lastCommand"):
        assert holds(status[key], STATUS[key])
    # Its acceptance is measured anew.
    assert status["stable"]["digest"] == STATUS["stable"]["digest"]
    assert holds(status["history"], STATUS["history"])
    rollout, before = status["rollout"], STATUS["rollout"]
    for key in ("id", "candidate", "state", "step", "stepEnteredAt", "withoutStable"):
        assert rollout[key] == before[key]
    assert before["plan"].items() <= rollout["plan"].items()
    evidence = rollout["evidence"]
    for key in ("requests", "logE", "logHarm", "logWealth", "stable", "candidate"):
        assert evidence[key] == before["evidence"][key]
    assert rollout["clock"]["startedAt"] == before["clock"]["startedAt"]
    # What it kept of requests is more than fits, which is said and does not stop it.
    degraded = wait_until(
        lambda: (
            deployments.condition("Degraded").get("status") == "True"
            and deployments.condition("Degraded")
        )
    )
    assert degraded["reason"] == "InvalidSpec"
    assert "spec.buffer.retention.maxBytes" in degraded["message"]
    labels = deployments.pods("inference")[0]["metadata"]["labels"]
    assert labels["team"] == "a"
    assert operator.errors() == []
