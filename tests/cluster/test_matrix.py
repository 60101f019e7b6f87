"""Argo Rollouts' end-to-end scenarios, for the rollout of a draft."""

import pytest
from support.deployments import wait_until

GOOD, BETTER, BAD = 0.9, 0.95, 0.05
PAUSE = "2s"
# Never reached in a test.
LONG = {"minRequests": 1_000_000}


def rollout(**changes):
    steps = [{"weightPercent": 20}, {"weightPercent": 50}]
    analysis = {"method": "Canary", "minRequests": 100} | changes.pop("analysis", {})
    return {"steps": steps, "analysis": analysis} | changes


@pytest.fixture
def chat(deployments, kubelet, operator):
    """A deployment of two pods that serves."""
    deployments.apply(replicas=2, rollout=rollout())
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    return deployments


def stable_digests(kubelet, namespace):
    """Of the ready pods: one that is shutting down is not promoted."""
    workers = [worker for worker in kubelet.workers(namespace, "inference") if worker.is_ready]
    return {worker.standin.stable.digest if worker.standin.stable else None for worker in workers}


def is_in(*states):
    return lambda status: status.get("rollout", {}).get("state") in states


def ended(count):
    return lambda status: len(status.get("history", ())) >= count


def outcomes(status):
    """Those of the ended rollouts, oldest first."""
    return [past["outcome"] for past in reversed(status["history"])]


def order(chat, status, verb):
    chat.annotate("chat", {"aurora.dev/command": f"{verb}/{status['rollout']['id']}"})


def test_abort_retry_promote(chat, kubelet):
    chat.apply(replicas=2, rollout=rollout(analysis=LONG))
    kubelet.publish(chat.namespace, "chat", acceptance=GOOD)
    order(chat, chat.await_status(is_in("Analyzing")), "abort")
    status = chat.await_status(ended(1))
    assert status["history"][0]["reason"] == "Aborted"
    assert status["lastCommand"]["outcome"] == "Done"
    assert stable_digests(kubelet, chat.namespace) == {None}
    chat.apply(replicas=2, rollout=rollout())
    digest = kubelet.publish(chat.namespace, "chat", acceptance=BETTER)
    assert outcomes(chat.await_status(ended(2))) == ["RolledBack", "Promoted"]
    assert stable_digests(kubelet, chat.namespace) == {digest}


def test_a_candidate_is_judged_by_what_it_does(chat, kubelet):
    """Good, bad, bad, good: each bad one is rolled back, and the stable one serves on."""
    served = kubelet.publish(chat.namespace, "chat", acceptance=GOOD)
    chat.await_status(ended(1))
    for count in (2, 3):
        kubelet.publish(chat.namespace, "chat", acceptance=BAD)
        status = chat.await_status(ended(count))
        assert status["history"][0]["reason"] == "AcceptanceHarm"
        assert stable_digests(kubelet, chat.namespace) == {served}
    better = kubelet.publish(chat.namespace, "chat", acceptance=1.0)
    status = chat.await_status(ended(4))
    assert outcomes(status) == ["Promoted", "RolledBack", "RolledBack", "Promoted"]
    assert stable_digests(kubelet, chat.namespace) == {better}


def test_promote_full(chat, kubelet):
    chat.apply(replicas=2, rollout=rollout(analysis=LONG))
    digest = kubelet.publish(chat.namespace, "chat", acceptance=GOOD)
    order(chat, chat.await_status(is_in("Analyzing")), "promote")
    status = chat.await_status(ended(1))
    assert (status["history"][0]["outcome"], status["history"][0]["reason"]) == (
        "Promoted",
        "Commanded",
    )
    assert stable_digests(kubelet, chat.namespace) == {digest}


def test_a_command_for_another_rollout_is_refused(chat, kubelet):
    chat.annotate("chat", {"aurora.dev/command": "abort/chat-99"})
    status = chat.await_status(lambda status: "lastCommand" in status)
    assert status["lastCommand"]["outcome"] == "Refused"
    assert "no rollout is in progress" in status["lastCommand"]["message"]


def test_a_pause_longer_than_the_deadline(chat, kubelet):
    chat.apply(replicas=2, rollout=rollout(analysis=LONG | {"maxDuration": PAUSE}))
    kubelet.publish(chat.namespace, "chat", acceptance=GOOD)
    chat.await_status(is_in("Analyzing"))
    paused = rollout(analysis=LONG | {"maxDuration": PAUSE}, paused=True)
    chat.apply(replicas=2, rollout=paused)
    status = chat.await_status(lambda status: status["rollout"].get("clock", {}).get("pausedAt"))
    requests = status["rollout"]["evidence"]["requests"]
    # Evidence arrives while the clock is paused: far more than two seconds of it.
    requests_meanwhile = 6 * 2 * kubelet.world.requests_per_poll
    status = chat.await_status(
        lambda status: status["rollout"]["evidence"]["requests"] > requests + requests_meanwhile
    )
    assert status["rollout"]["state"] == "Analyzing"
    chat.apply(replicas=2, rollout=rollout(analysis=LONG | {"maxDuration": PAUSE}))
    status = chat.await_status(ended(1))
    assert outcomes(status) == ["Inconclusive"]


def test_a_candidate_is_superseded_while_it_waits(chat, kubelet):
    chat.apply(replicas=2, rollout=rollout(analysis=LONG))
    kubelet.publish(chat.namespace, "chat", acceptance=GOOD)
    chat.await_status(is_in("Analyzing"))
    chat.apply(replicas=2, rollout=rollout())
    passed_over = kubelet.publish(chat.namespace, "chat", acceptance=GOOD)
    newest = kubelet.publish(chat.namespace, "chat", acceptance=BETTER)
    status = chat.await_status(lambda status: status["queue"].get("sequence") == 3)
    assert status["queue"]["waiting"]["digest"] == newest
    assert status["queue"]["superseded"] == [passed_over]
    order(chat, status, "abort")
    assert outcomes(chat.await_status(ended(2))) == ["RolledBack", "Promoted"]
    assert stable_digests(kubelet, chat.namespace) == {newest}


def test_template_and_replicas_change_during_a_rollout(chat, kubelet):
    chat.apply(replicas=2, rollout=rollout(analysis=LONG))
    digest = kubelet.publish(chat.namespace, "chat", acceptance=GOOD)
    chat.await_status(is_in("Analyzing"))
    before = {pod["metadata"]["uid"] for pod in chat.pods("inference")}
    chat.apply(replicas=3, rollout=rollout(analysis=LONG), inference={"maxBatch": 4})
    status = chat.await_status(
        lambda status: (
            status.get("updatedReplicas") == status.get("readyReplicas") == 3
            and status["replicas"] == 3
        )
    )
    # The status does not count pods that are shutting down.
    wait_until(lambda: not before & {pod["metadata"]["uid"] for pod in chat.pods("inference")})
    assert status["rollout"]["state"] == "Analyzing"
    order(chat, status, "promote")
    assert outcomes(chat.await_status(ended(1))) == ["Promoted"]
    assert stable_digests(kubelet, chat.namespace) == {digest}


def degraded(status):
    """The message of the Degraded condition; empty if it is false."""
    found = [one for one in status.get("conditions", ()) if one["type"] == "Degraded"]
    return found[0]["message"] if found and found[0]["status"] == "True" else ""


def test_a_bad_template_leaves_the_serving_pods_and_a_good_one_recovers(chat, kubelet):
    """Good, bad, bad, good."""
    for spec, says in (
        ({"nodeSelector": {"zone": "nowhere"}}, "node"),
        ({"containers": [{"name": "inference", "unknown": 1}]}, "unknown"),
    ):
        chat.apply(replicas=2, rollout=rollout(), inference={"podTemplate": {"spec": spec}})
        chat.await_status(lambda status, says=says: says in degraded(status))
        assert chat.condition("Ready")["status"] == "True"
    chat.apply(replicas=2, rollout=rollout(), inference={"maxBatch": 2})
    chat.await_status(
        lambda status: (
            status.get("updatedReplicas") == status.get("readyReplicas") == 2
            and not degraded(status)
        )
    )
