"""A deployment from its creation to its deletion; drafts are promoted, refused or delayed."""

import re

import pytest
from support.deployments import wait_until

from aurora_operator.adapters.kubernetes import Kind
from aurora_operator.cluster.kinds import CHILDREN, POD, POLLED

# Every kind of object that a deployment may have.
MADE = (
    *(kind for kind in CHILDREN.values() if kind not in POLLED),
    *(POD, Kind("v1", "Secret", "secrets")),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
)


@pytest.fixture
def chat(deployments, kubelet, operator):
    """A deployment of two pods that serves its initial draft."""
    deployments.apply(replicas=2, draft={"initialCheckpoint": {"uri": "pvc://models/draft-0"}})
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    deployments.await_status(lambda status: is_idle(status) and status.get("stable"))
    return deployments


def is_idle(status):
    return {"Progressing": "False", "Degraded": "False"}.items() <= {
        each["type"]: each["status"] for each in status.get("conditions", ())
    }.items()


def message(status, kind):
    return next(each["message"] for each in status["conditions"] if each["type"] == kind)


def stable_digests(kubelet, namespace):
    return [worker.standin.stable.digest for worker in kubelet.workers(namespace, "inference")]


def test_promotes_a_better_draft_on_every_pod(chat, kubelet):
    digest = kubelet.publish(chat.namespace, "chat", acceptance=0.9)
    status = chat.await_status(lambda status: status.get("history"))

    assert status["history"][0]["outcome"] == "Promoted"
    assert stable_digests(kubelet, chat.namespace) == [digest, digest]
    # What the trainer publishes next is judged against it, and it knows how the rollout ended.
    wait_until(lambda: kubelet.world.pruned[-1].stable_digest == digest)
    (verdict,) = kubelet.world.pruned[-1].verdicts
    assert (verdict.digest, verdict.outcome) == (digest, "Promoted")


def test_a_pod_that_cannot_stage_delays_the_rollout_and_is_named(chat, kubelet):
    first, _ = kubelet.workers(chat.namespace, "inference")
    kubelet.world.hindrances[first.name] = "the disk is full"
    digest = kubelet.publish(chat.namespace, "chat", acceptance=0.9)

    status = chat.await_status(lambda status: first.name in message(status, "Progressing"))
    assert status["rollout"]["state"] == "Pending"
    assert "the disk is full" in message(status, "Progressing")

    kubelet.world.hindrances.clear()
    status = chat.await_status(lambda status: status.get("history"))
    assert status["history"][0]["outcome"] == "Promoted"
    assert stable_digests(kubelet, chat.namespace) == [digest, digest]


def test_a_draft_that_one_pod_refuses_is_unstaged_from_all(chat, kubelet):
    before = stable_digests(kubelet, chat.namespace)
    first, second = kubelet.workers(chat.namespace, "inference")
    kubelet.world.refusals[first.name] = "lm_head holds NaN"
    kubelet.publish(chat.namespace, "chat", acceptance=0.9)

    status = chat.await_status(lambda status: status.get("history"))
    assert status["history"][0]["outcome"] == "RolledBack"
    assert status["history"][0]["reason"] == f"CheckpointRefused: {first.name}: lm_head holds NaN"
    wait_until(lambda: second.standin.candidate is None)
    assert stable_digests(kubelet, chat.namespace) == before


def test_nothing_unchanged_is_written(chat, operator, control_plane):
    assert control_plane.audit.writes(user=operator.user, namespace=chat.namespace) != []
    version = chat.get()["metadata"]["resourceVersion"]
    mark = control_plane.audit.mark()
    # Each start reconciles everything, and remembers nothing of earlier runs.
    for _ in range(2):
        operator.restart()
        wait_until(lambda: reconciles(operator, "objects") and reconciles(operator, "rollout"))

    written = control_plane.audit.writes(mark, user=operator.user, namespace=chat.namespace)
    # Its claim of the namespace, which it releases and renews.
    assert {write.resource for write in written} == {"leases"}
    assert chat.get()["metadata"]["resourceVersion"] == version


def test_a_deleted_deployment_leaves_nothing_behind(chat, kubelet, operator):
    kubelet.publish(chat.namespace, "chat", acceptance=0.9)
    chat.await_status(lambda status: status.get("rollout"))

    made = {kind for kind, _ in remains(chat)}
    assert {kind.kind for kind in MADE} - made == {"HorizontalPodAutoscaler"}

    chat.delete()

    wait_until(lambda: remains(chat) == [], seconds=60, why=lambda: remains(chat))
    assert kubelet.workers(chat.namespace) == []
    assert operator.runs
    assert operator.errors() == []


def reconciles(operator, worker):
    """The number of reconciles since the operator's start."""
    found = re.search(
        rf'^aurora_operator_reconcile_seconds_count{{result="done",worker="{worker}"}} (\S+)$',
        operator.metrics(),
        re.MULTILINE,
    )
    return float(found[1]) if found else 0.0


def remains(chat):
    """The deployment's remaining objects, claims included."""
    labels = "app.kubernetes.io/instance=chat"
    return [
        (kind.kind, body["metadata"]["name"])
        for kind in MADE
        for body in chat.objects(kind.api_version, kind.plural, labels)
    ]
