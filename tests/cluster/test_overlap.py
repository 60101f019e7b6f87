"""Two operators never manage the same deployments, and two with disjoint namespaces both work."""

import sys

import pytest
from support.deployments import Deployments, wait_until
from support.operator_process import OperatorProcess, install_rights

# Its own Lease, which it renews every two seconds, is not counted.
MOST_WRITES = 5


@pytest.fixture
def another(control_plane, helm, tmp_path):
    """Makes an operator of another release."""
    made = []

    def another(release, namespace, *, watched=()):
        user = install_rights(control_plane, helm, namespace, release=release, watched=watched)
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles"
        role = control_plane.request("GET", f"{path}/{user.split(':')[-1]}-lease")
        (lease_name,) = (rule["resourceNames"][0] for rule in role["rules"] if len(rule) > 3)
        folder = tmp_path / release
        folder.mkdir()
        made.append(OperatorProcess(control_plane, user, folder, lease_name=lease_name))
        return made[-1]

    yield another
    for operator in made:
        operator.stop()
        sys.stderr.write(operator.log())


def test_a_second_release_refuses_to_act_until_the_first_is_gone(
    control_plane, deployments, kubelet, operator, another
):
    deployments.apply()
    operator.start()
    deployments.await_ready()
    # Other tests have left deployments elsewhere, one of which might get the Event.
    watched = [deployments.namespace]
    second = another("second", control_plane.create_namespace(), watched=watched)
    mark = control_plane.audit.mark()

    second.start(namespaces=watched, wait=False)
    first = f"{operator.lease_namespace}/aurora-operator"
    wait_until(lambda: f"{deployments.namespace} by {first}" in second.unready())
    wait_until(
        lambda: any(
            event["reason"] == "OperatorOverlap" and first in event["message"]
            for event in deployments.objects("v1", "events")
        )
    )
    # The first one goes on.
    deployments.apply(replicas=2)
    deployments.await_status(lambda status: status.get("readyReplicas") == 2)
    assert f'"operator": "{first}"' in second.log()
    found = control_plane.audit.writes(mark, user=second.user)
    written = [
        write
        for write in found
        if (write.resource, write.namespace) != ("leases", second.lease_namespace)
    ]
    assert len(written) <= MOST_WRITES, written
    assert {write.resource for write in written} == {"events"}

    operator.stop()
    wait_until(second.is_ready, seconds=60)
    deployments.apply(replicas=1)
    deployments.await_status(lambda status: status.get("readyReplicas") == 1, seconds=60)


def test_releases_in_one_namespace_manage_disjoint_namespaces(control_plane, kubelet, another):
    system = control_plane.create_namespace()
    for name in ("one", "two"):
        namespace = control_plane.create_namespace()
        control_plane.await_account(namespace)
        operator = another(name, system, watched=[namespace])
        operator.start(namespaces=[namespace])
        deployments = Deployments(control_plane, namespace)
        deployments.claim()
        deployments.apply()
        deployments.await_ready()
