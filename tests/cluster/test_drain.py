"""A node's drain evicts pods of inference one at a time, and those that do not serve at once."""

import pytest
from kubernetes.client.exceptions import ApiException
from support.deployments import wait_until


@pytest.fixture
def evict(control_plane, deployments):
    """Evicts a pod as `kubectl drain` does; whether its budget let it go."""

    def evict(name):
        path = f"/api/v1/namespaces/{deployments.namespace}/pods/{name}/eviction"
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
        try:
            control_plane.request("POST", path, body)
        except ApiException as error:
            if error.status != 429:
                raise
            return False
        return True

    return evict


def allowed(deployments):
    budget = deployments.object("policy/v1", "poddisruptionbudgets", "chat-inference")
    return budget.get("status", {}).get("disruptionsAllowed")


def names(deployments):
    return sorted(
        pod["metadata"]["name"]
        for pod in deployments.pods("inference")
        if "deletionTimestamp" not in pod["metadata"]
    )


def test_the_next_pod_goes_once_a_successor_serves(deployments, kubelet, operator, evict):
    deployments.apply(replicas=2)
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    wait_until(lambda: allowed(deployments) == 1)
    # Successors start, and do not serve yet.
    kubelet.faults.unready.add("aurora-inference:0.1.0")
    first, second = names(deployments)

    assert evict(first)
    assert not evict(second)

    wait_until(lambda: len(names(deployments)) == 2)
    (successor,) = set(names(deployments)) - {second}
    # It serves nobody, so that it holds up nothing once its budget has seen it.
    wait_until(lambda: evict(successor))
    assert not evict(second)

    kubelet.faults.unready.clear()
    deployments.await_ready()
    wait_until(lambda: evict(second))
    wait_until(lambda: second not in names(deployments))
    deployments.await_ready()
