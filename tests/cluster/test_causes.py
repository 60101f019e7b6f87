"""The status names a failing pod and the cause."""

import pytest
from support.deployments import wait_until

IMAGE = "aurora-inference:wrong"


@pytest.fixture
def chat(deployments, kubelet, operator):
    """A deployment of two pods that serves."""
    deployments.apply(replicas=2)
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    return deployments


@pytest.fixture
def cordoned(kubelet):
    kubelet.cordon()
    yield
    kubelet.cordon(unschedulable=False)


def condition(status, kind):
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def says(kind, *parts):
    """Whether a condition is true and its message contains every part."""

    def found(status):
        told = condition(status, kind)
        return told.get("status") == "True" and all(part in told["message"] for part in parts)

    return found


def is_well(status):
    return condition(status, "Degraded").get("status") == "False" and (
        condition(status, "Progressing").get("status") == "False"
    )


FAULTS = {
    "an image that does not exist": (
        lambda faults: faults.unpullable.add(IMAGE),
        (f"cannot pull image {IMAGE}", "not found"),
    ),
    "a container that ends": (
        lambda faults: faults.crashing.update({IMAGE: "no CUDA device"}),
        ("inference ended with exit code 1 (Error): no CUDA device",),
    ),
}


@pytest.mark.parametrize(("begin", "told"), FAULTS.values(), ids=FAULTS)
def test_a_bad_image_is_named_while_the_old_pods_serve_on(chat, kubelet, begin, told):
    begin(kubelet.faults)
    served = {pod["metadata"]["name"] for pod in chat.pods("inference")}

    chat.apply(replicas=2, inference={"image": IMAGE})
    is_told = says("Degraded", *told)
    status = chat.await_status(lambda status: is_told(status) and status["updatedReplicas"] == 1)

    (bad,) = {pod["metadata"]["name"] for pod in chat.pods("inference")} - served
    assert f"pod {bad}: " in condition(status, "Degraded")["message"]
    assert condition(status, "Ready")["status"] == "True"
    assert (status["readyReplicas"], status["updatedReplicas"]) == (2, 1)

    chat.apply(replicas=2)
    chat.await_status(is_well)
    assert {pod["metadata"]["name"] for pod in chat.pods("inference")} == served


def test_a_pod_that_does_not_become_ready_is_waited_for(chat, kubelet):
    kubelet.faults.unready.add(IMAGE)

    chat.apply(replicas=2, inference={"image": IMAGE})
    status = chat.await_status(says("Progressing", "1 of 2 inference pods are updated"))

    assert condition(status, "Ready")["status"] == "True"
    # The old pods stay until their successors serve.
    assert len(chat.pods("inference")) == 3
    kubelet.faults.unready.clear()
    chat.await_status(lambda status: is_well(status) and status["updatedReplicas"] == 2)


def test_a_stray_pod_with_the_labels_is_ignored(control_plane, chat, kubelet):
    pod = chat.pods("inference")[0]
    labels = {
        name: value
        for name, value in pod["metadata"]["labels"].items()
        if name != "pod-template-hash"
    }
    # It is never scheduled.
    spec = {
        "nodeSelector": {"no": "node"},
        "securityContext": pod["spec"]["securityContext"],
        "containers": [
            {
                "name": "inference",
                "image": "x",
                "securityContext": pod["spec"]["containers"][0]["securityContext"],
            }
        ],
    }
    stray = {"metadata": {"name": "stray", "labels": labels}, "spec": spec}
    control_plane.request("POST", f"/api/v1/namespaces/{chat.namespace}/pods", stray)

    digest = kubelet.publish(chat.namespace, "chat", acceptance=0.9)
    status = chat.await_status(lambda status: status.get("stable", {}).get("digest") == digest)
    assert (status["replicas"], status["readyReplicas"]) == (2, 2)
    assert "stray" in {pod["metadata"]["name"] for pod in chat.pods("inference")}
    assert condition(status, "Degraded")["status"] == "False"


def test_a_scale_that_an_autoscaler_ignores_is_named(chat):
    chat.apply(replicas=5, inference={"autoscaling": {"maxReplicas": 3}})

    def says_so(status):
        told = condition(status, "Ready").get("message", "")
        return told.endswith("spec.replicas, 5, is ignored: inference.autoscaling decides")

    chat.await_status(says_so)


def test_a_node_that_accepts_no_pod_is_named(chat, cordoned):
    chat.apply(replicas=3)

    status = chat.await_status(says("Degraded", "cannot be scheduled", "unschedulable"))
    assert condition(status, "Ready")["message"].startswith("2 of 3 inference pods are ready: pod")
    assert condition(status, "Ready")["status"] == "False"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"security": {"authSecretRef": {"name": "tokens"}}},
            'cannot mount its volumes: MountVolume.SetUp failed for volume "aurora-tokens" : '
            'secret "tokens" not found',
        ),
        (
            {"buffer": {"external": {"urlSecretRef": {"name": "redis", "key": "url"}}}},
            'secret "redis" not found',
        ),
        (
            {"modelStore": {"pvc": {"claimName": "absent"}}},
            "PersistentVolumeClaim absent does not exist",
        ),
    ],
    ids=["tokens", "Redis URL", "claim"],
)
def test_what_is_missing_is_named(deployments, kubelet, operator, changed, told):
    operator.start(namespaces=[deployments.namespace])
    deployments.apply(**changed)

    # Events are not watched, but listed every few seconds.
    deployments.await_status(says("Degraded", told), seconds=60)


def test_a_cert_manager_that_is_not_installed_is_named(deployments, kubelet, operator):
    operator.start(namespaces=[deployments.namespace])
    issuer = {"kind": "Issuer", "name": "ours"}
    deployments.apply(security={"tls": {"mode": "CertManager", "issuerRef": issuer}})

    status = deployments.await_status(says("Degraded", "cert-manager is not installed"))
    assert condition(status, "Degraded")["reason"] == "CertificateNotIssued"
    assert condition(status, "Degraded")["message"].count("cert-manager") == 1

    deployments.apply()
    deployments.await_status(is_well)


@pytest.mark.slow
def test_a_pod_that_cannot_be_controlled_is_named_within_two_minutes(chat, kubelet, operator):
    name = kubelet.workers(chat.namespace, "inference")[0].name
    kubelet.world.hindrances[name] = "the claim is not mounted"
    kubelet.publish(chat.namespace, "chat", acceptance=0.9)

    told = (f"pod {name} cannot be controlled: ", "the claim is not mounted")
    chat.await_status(says("Degraded", *told), seconds=120)
    # It is tried again every second, and said ever more rarely.
    assert 1 < operator.log(characters=1_000_000).count("action failed") < 12

    kubelet.world.hindrances.clear()
    chat.await_status(is_well, seconds=60)


@pytest.fixture
def broken_webhook(control_plane, deployments):
    """An admission webhook for the namespace's Services that nobody answers."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    services = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": deployments.namespace}}
    webhook = {
        "name": "broken.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "rules": [{**services, "operations": ["CREATE"]}],
        "namespaceSelector": here,
    }
    body = {"metadata": {"name": "broken"}, "webhooks": [webhook]}
    control_plane.request("POST", path, body)
    yield
    control_plane.request("DELETE", f"{path}/broken")


@pytest.mark.slow
def test_a_webhook_that_does_not_answer_is_named_within_two_minutes(
    deployments, broken_webhook, kubelet, operator
):
    operator.start(namespaces=[deployments.namespace])
    deployments.apply()

    told = ("failed calling webhook", "broken.example.com")
    status = deployments.await_status(says("Degraded", *told), seconds=120)
    assert condition(status, "Degraded")["reason"] == "ApplyRefused"


def test_an_inference_that_crashed_gets_its_draft_again(deployments, kubelet, operator):
    deployments.apply(replicas=2, draft={"initialCheckpoint": {"uri": "pvc://models/draft-0"}})
    operator.start(namespaces=[deployments.namespace])
    first = deployments.await_status(lambda status: is_well(status) and status.get("stable"))
    worker = kubelet.workers(deployments.namespace, "inference")[0]
    before = worker.standin

    kubelet.crash(deployments.namespace, worker.name, message="out of memory")

    deployments.await_status(says("Degraded", worker.name, "out of memory"))
    deployments.await_status(is_well)
    wait_until(lambda: worker.standin is not before and worker.standin.stable is not None)
    assert worker.standin.stable.digest == first["stable"]["digest"]
