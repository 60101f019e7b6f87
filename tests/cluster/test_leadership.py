"""Only one of several operators acts."""

import pytest
from support.operator_process import OperatorProcess


@pytest.fixture
def lease(control_plane, operator):
    """The lease's current spec, once the operator leads."""
    operator.start()
    path = f"/apis/coordination.k8s.io/v1/namespaces/{operator.lease_namespace}/leases"
    return lambda: control_plane.request("GET", f"{path}/aurora-operator")["spec"]


def test_a_container_that_restarts_in_its_pod_leads_on(operator, lease):
    before = lease()
    operator.kill()
    operator.restart()
    after = lease()
    assert after["holderIdentity"] == before["holderIdentity"]
    # It did not wait for its own lease to expire.
    assert after["leaseTransitions"] == before["leaseTransitions"]
    assert after["acquireTime"] == before["acquireTime"]


def test_another_operator_leads_only_once_the_first_one_released_the_lease(
    control_plane, operator, operator_user, lease, tmp_path
):
    first = lease()["holderIdentity"]
    folder = tmp_path / "other"
    folder.mkdir()
    other = OperatorProcess(control_plane, operator_user, folder)
    other.start(wait=False)
    try:
        control_plane.await_that(other.answers, "the other operator answers")
        assert "aurora_operator_leader 0.0" in other.metrics()
        assert lease()["holderIdentity"] == first
        operator.stop()
        other.await_ready()
        assert lease()["holderIdentity"] != first
    finally:
        other.stop()
