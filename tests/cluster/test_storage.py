"""Redis' volume grows with `storage`, or the deployment says why it does not."""

import copy
import uuid

import pytest
from kubernetes.client.exceptions import ApiException
from support.deployments import wait_until

from aurora_operator.domain.crd import definition

CLAIM = "redis-chat-buffer-0"


@pytest.fixture
def storage_class(control_plane):
    """Makes a class whose volumes may grow, or may not; returns its name."""
    path = "/apis/storage.k8s.io/v1/storageclasses"
    made = []

    def make(*, grows):
        name = f"class-{uuid.uuid4().hex[:8]}"
        body = {
            "metadata": {"name": name},
            "provisioner": "example.com/none",
            "allowVolumeExpansion": grows,
        }
        control_plane.request("POST", path, body)
        made.append(name)
        return name

    yield make
    for name in made:
        control_plane.request("DELETE", f"{path}/{name}")


@pytest.fixture
def chat(deployments, kubelet, operator, storage_class):
    """A deployment that serves, of 1Gi of storage; `grow` applies another size."""

    def start(*, grows):
        name = storage_class(grows=grows)

        def apply(storage):
            embedded = {"storage": storage, "storageClassName": name}
            deployments.apply(buffer={"embedded": embedded})

        apply("1Gi")
        operator.start(namespaces=[deployments.namespace])
        deployments.await_ready()
        wait_until(lambda: claim(deployments)["status"].get("phase") == "Bound")
        return apply

    return start


def claim(deployments):
    return deployments.object("v1", "persistentvolumeclaims", CLAIM)


def requested(deployments):
    return claim(deployments)["spec"]["resources"]["requests"]["storage"]


def is_degraded(status, reason):
    return any(
        each["type"] == "Degraded" and each["reason"] == reason for each in status["conditions"]
    )


def test_a_volume_grows_if_its_class_allows(chat, deployments, operator):
    grow = chat(grows=True)
    before = deployments.object("apps/v1", "statefulsets", "chat-buffer")["metadata"]

    grow("2Gi")

    wait_until(lambda: requested(deployments) == "2Gi")
    after = deployments.object("apps/v1", "statefulsets", "chat-buffer")
    assert after["metadata"]["uid"] == before["uid"]
    assert "--storage-bytes" in after["spec"]["template"]["spec"]["containers"][1]["command"]
    assert str(2 << 30) in after["spec"]["template"]["spec"]["containers"][1]["command"]
    # What enlarges it is not part of this control plane.
    status = {"capacity": {"storage": "2Gi"}}
    deployments.apply_status("v1", "persistentvolumeclaims", CLAIM, status)
    deployments.await_status(lambda status: is_degraded(status, "AsExpected"))
    deployments.await_ready()
    # An operator that begins anew finds everything as it should be.
    operator.restart()
    grow("3Gi")
    wait_until(lambda: requested(deployments) == "3Gi")


@pytest.mark.slow
def test_a_volume_that_does_not_grow_for_long_is_named(chat, deployments):
    chat(grows=True)("2Gi")

    status = deployments.await_status(
        lambda status: is_degraded(status, "VolumeNotEnlarged"), seconds=120
    )
    (told,) = (each["message"] for each in status["conditions"] if each["type"] == "Degraded")
    assert told == (
        f"PersistentVolumeClaim {CLAIM} cannot be enlarged to 2Gi: its volume is not enlarged yet"
    )
    capacity = {"capacity": {"storage": "2Gi"}}
    deployments.apply_status("v1", "persistentvolumeclaims", CLAIM, capacity)
    deployments.await_status(lambda status: is_degraded(status, "AsExpected"), seconds=60)


def test_a_class_that_forbids_it_is_named(chat, deployments):
    chat(grows=False)("2Gi")

    status = deployments.await_status(lambda status: is_degraded(status, "VolumeNotEnlarged"))
    (told,) = (each["message"] for each in status["conditions"] if each["type"] == "Degraded")
    assert told.startswith(f"PersistentVolumeClaim {CLAIM} cannot be enlarged to 2Gi: ")
    assert "must support resize" in told
    assert requested(deployments) == "1Gi"
    deployments.await_ready()


@pytest.fixture
def stored(control_plane, deployments):
    """A deployment with the defaults of an earlier version, which had no rule against them."""
    earlier = copy.deepcopy(definition())
    schema = earlier["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["buffer"]["x-kubernetes-validations"][1:]
    control_plane.install(earlier)
    buffer = {"embedded": {"storage": "20Gi"}, "retention": {"maxBytes": "16Gi"}}
    try:
        # Not every request is served by the new definition at once.
        wait_until(lambda: is_applied(deployments, buffer))
    finally:
        control_plane.install(definition())
    return buffer


def is_applied(deployments, buffer):
    try:
        return deployments.apply(buffer=buffer)
    except ApiException as error:
        if error.status != 422:
            raise
        return None


def test_a_deployment_of_an_earlier_version_goes_on(stored, deployments, kubelet, operator):
    operator.start(namespaces=[deployments.namespace])

    status = deployments.await_status(
        lambda status: status.get("conditions") and is_degraded(status, "InvalidSpec")
    )
    (told,) = (each["message"] for each in status["conditions"] if each["type"] == "Degraded")
    assert told.startswith("spec.buffer.retention.maxBytes: 2147483648 bytes are kept, not 16Gi: ")
    # All else of it may change, and does.
    deployments.apply(replicas=2, buffer=stored)
    deployments.await_status(lambda status: status.get("readyReplicas") == 2)
    deployments.apply(buffer={"embedded": {"storage": "20Gi"}, "retention": {"maxBytes": "2Gi"}})
    deployments.await_status(lambda status: is_degraded(status, "AsExpected"))
