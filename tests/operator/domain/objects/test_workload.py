"""Components as the API server shows them: what is told of each way in which a pod can fail."""

from datetime import UTC, datetime, timedelta

import pytest

from aurora_operator.domain.objects.cause import Surroundings, by_object
from aurora_operator.domain.objects.workload import component_view, scale, together
from aurora_operator.domain.plan.observation import ComponentView, Scale

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOWHERE = Surroundings(NOW, claims={}, events={})


def time(seconds):
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(name="chat-inference-7d9f-abcde", *, component="inference", **status):
    containers = status.pop("containers", [{"name": component, "image": "aurora/inference:1"}])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "serving", "uid": f"u-{name}"},
        "spec": {"containers": containers, "volumes": status.pop("volumes", [])},
        "status": {"phase": "Pending", **status},
    }


def ready_pod(name):
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "True"},
    ]
    return pod(name, phase="Running", conditions=conditions)


def container(state, *, last=None, name="inference", **more):
    return {
        "name": name,
        "ready": False,
        "restartCount": 0 if last is None else 3,
        "image": "registry.example/aurora/inference:1",
        "state": state,
        "lastState": {} if last is None else {"terminated": last},
        **more,
    }


def waiting(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


def scheduled(*statuses, **more):
    conditions = [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
    ]
    return pod(conditions=conditions, containerStatuses=list(statuses), **more)


def on_node(body):
    return {**body, "spec": {**body["spec"], "nodeName": "gpu-1"}}


def unscheduled(message, **more):
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        **more,
    }
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    return pod(conditions=[condition], volumes=volumes)


def workload(kind="Deployment", *, replicas=1, **status):
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": "chat-inference", "generation": 2},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"b": "2", "a": "1"}}},
        "status": {"observedGeneration": 2, **status},
    }


def event(kind, name, reason, message, *, seconds=0):
    return {
        "metadata": {"creationTimestamp": time(seconds)},
        "involvedObject": {"kind": kind, "name": name},
        "reason": reason,
        "message": message,
        "lastTimestamp": time(seconds),
    }


def view(*pods, of=None, around=NOWHERE):
    return component_view("inference", of or workload(), pods, around)


NAME = "chat-inference-7d9f-abcde"
FULL = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are available"
PULL = 'Back-off pulling image "registry.example/aurora/inference:1": ErrImagePull: not found'
ENDED = {"exitCode": 1, "reason": "Error", "message": "loading\naurora_inference: no model in /x\n"}
LOGGED = {"exitCode": 1, "reason": "Error", "message": '{"level": "error", "message": "no GPU"}'}

FAILING = [
    (unscheduled(FULL), f"cannot be scheduled: {FULL}"),
    (
        scheduled(container(waiting("ImagePullBackOff", PULL))),
        f"cannot pull image registry.example/aurora/inference:1: {PULL}",
    ),
    (
        scheduled(container(waiting("ErrImagePull", "not\n  found"))),
        "cannot pull image registry.example/aurora/inference:1: not found",
    ),
    (
        scheduled(container(waiting("InvalidImageName", "couldn't parse"), image="")),
        "cannot pull image aurora/inference:1: couldn't parse",
    ),
    (
        scheduled(container(waiting("CreateContainerConfigError", 'secret "tokens" not found'))),
        'inference cannot be started: secret "tokens" not found',
    ),
    (
        scheduled(container(waiting("CreateContainerConfigError", "couldn't find key url in Se"))),
        "inference cannot be started: couldn't find key url in Se",
    ),
    (
        scheduled(container(waiting("CrashLoopBackOff", "back-off 5m0s"), last=ENDED)),
        "inference ended with exit code 1 (Error): aurora_inference: no model in /x",
    ),
    (
        scheduled(container(waiting("CrashLoopBackOff", "back-off 5m0s"), last=LOGGED)),
        "inference ended with exit code 1 (Error): no GPU",
    ),
    (
        scheduled(container({"terminated": {"exitCode": 139, "reason": "Error"}})),
        "inference ended with exit code 139 (Error)",
    ),
    (
        scheduled(
            container(
                waiting("CrashLoopBackOff"),
                last={"exitCode": 137, "reason": "OOMKilled", "message": "{"},
            )
        ),
        "inference was killed for using more memory than its limit (OOMKilled)",
    ),
    (
        scheduled(container({"running": {"startedAt": time(-90)}}, started=True)),
        "inference runs, but is not ready",
    ),
    (
        scheduled(container({"running": {"startedAt": time(-2)}}, last=ENDED, started=True)),
        "inference runs, but is not ready; before, it ended with exit code 1 (Error): "
        "aurora_inference: no model in /x",
    ),
    (
        on_node(scheduled({**container({"running": {}}), "ready": True})),
        "is not ready, though its containers are: node gpu-1 may not answer",
    ),
    (
        pod(phase="Failed", reason="Evicted", message="The node was low on memory."),
        "Evicted: The node was low on memory.",
    ),
]


@pytest.mark.parametrize(("failing", "says"), FAILING, ids=[says[:40] for _, says in FAILING])
def test_a_failure_is_told_in_full(failing, says):
    expected = ComponentView("inference", False, failing=True, message=f"pod {NAME}: {says}")
    assert view(failing) == expected


STARTING = [
    (pod(), "waits for a node"),
    (on_node(scheduled()), "waits for the kubelet of node gpu-1"),
    (unscheduled("held", reason="SchedulingGated"), "is held back by a scheduling gate"),
    (scheduled(container(waiting("ContainerCreating"))), "inference is being created"),
    (
        scheduled(container({"running": {"startedAt": time(-5)}}, started=True)),
        "inference runs, but is not ready",
    ),
    (
        scheduled(container({"running": {"startedAt": time(-900)}}, started=False)),
        "inference runs, but is not ready",
    ),
]


@pytest.mark.parametrize(("starting", "says"), STARTING, ids=[says for _, says in STARTING])
def test_a_start_is_no_failure(starting, says):
    expected = ComponentView("inference", False, failing=False, message=f"pod {NAME}: {says}")
    assert view(starting) == expected


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"models": None}, "PersistentVolumeClaim models does not exist; cannot be scheduled: "),
        ({"models": {"status": {"phase": "Lost"}}}, "PersistentVolumeClaim models is Lost: "),
        (
            {"models": {"status": {"phase": "Pending"}}},
            "PersistentVolumeClaim models is Pending: no such storage class; ",
        ),
        ({"models": {"status": {"phase": "Bound"}}}, "cannot be scheduled: "),
        ({}, "cannot be scheduled: "),
    ],
)
def test_a_claim_is_named(claims, says):
    events = [
        event("PersistentVolumeClaim", "models", "ProvisioningFailed", "no such storage class"),
        event("PersistentVolumeClaim", "others", "ProvisioningFailed", "else", seconds=9),
    ]
    unbound = unscheduled("pod has unbound immediate PersistentVolumeClaims")
    found = view(unbound, around=Surroundings(NOW, claims, by_object(events)))
    assert found.failing
    assert found.message.startswith(f"pod {NAME}: {says}")


def test_a_volume_that_cannot_be_mounted_is_told_by_its_newest_event():
    events = [
        event("Pod", NAME, "FailedMount", "older", seconds=-60),
        event("Pod", NAME, "FailedMount", 'MountVolume.SetUp failed: secret "x" not found'),
        event("Pod", NAME, "Pulled", "newer", seconds=5),
    ]
    creating = scheduled(container(waiting("ContainerCreating")))
    found = view(creating, around=Surroundings(NOW, {}, by_object(events)))
    assert found.failing
    assert found.message.endswith('its volumes: MountVolume.SetUp failed: secret "x" not found')


def test_a_probe_that_fails_is_told():
    events = [event("Pod", NAME, "Unhealthy", "Readiness probe failed: connection refused")]
    running = scheduled(container({"running": {"startedAt": time(-90)}}, started=True))
    found = view(running, around=Surroundings(NOW, {}, by_object(events)))
    assert found.message.endswith("is not ready: Readiness probe failed: connection refused")


def test_pods_that_are_refused_are_told_by_the_deployment():
    message = 'pods "chat-inference-7d9f-" is forbidden: exceeded quota: pods'
    condition = {"type": "ReplicaFailure", "status": "True", "message": message}
    found = view(of=workload(conditions=[condition]))
    assert found == ComponentView(
        "inference", False, failing=True, message=f"its pods are refused: {message}"
    )


def test_pods_that_are_refused_are_told_by_a_stateful_sets_event():
    message = "create Pod chat-trainer-0 failed: violates PodSecurity"
    events = [event("StatefulSet", "chat-inference", "FailedCreate", message)]
    around = Surroundings(NOW, {}, by_object(events))
    found = view(of=workload("StatefulSet"), around=around)
    assert found.message == f"its pods are refused: {message}"
    # An old event says nothing once the pod is there.
    assert view(ready_pod("a"), of=workload("StatefulSet"), around=around).message == ""


def test_an_init_container_is_told_before_those_that_wait_for_it():
    first = container({"terminated": ENDED}, name="prepare")
    main = container(waiting("PodInitializing"))
    found = view(scheduled(main, initContainerStatuses=[first]))
    assert found.message.startswith(f"pod {NAME}: prepare ended with exit code 1")


def test_a_sidecar_that_waits_hides_no_failure():
    gateway = container({"running": {}}, name="inference")
    crashed = container(
        waiting("CrashLoopBackOff"), name="vllm", last={"terminated": {"exitCode": 1}}
    )
    body = scheduled(crashed, initContainerStatuses=[gateway])
    body["spec"]["initContainers"] = [{"name": "inference", "restartPolicy": "Always"}]

    assert "vllm" in view(body).message
    body["status"]["containerStatuses"] = [container({"running": {}}, name="vllm", ready=True)]
    assert "inference" in view(body).message


def test_the_failing_one_is_told_of_many():
    starting = scheduled(container(waiting("ContainerCreating")))
    failing = unscheduled(FULL)
    found = view(ready_pod("a"), starting, failing, failing, of=workload(replicas=4))
    assert found.message == f"pod {NAME}: cannot be scheduled: {FULL} (and 1 more)"


def test_a_stuck_update_is_told_though_all_that_are_wanted_serve():
    found = view(ready_pod("a"), ready_pod("b"), unscheduled(FULL), of=workload(replicas=2))
    assert (found.ready, found.failing) == (True, True)


def test_ready_says_nothing():
    assert view(ready_pod("a")) == ComponentView("inference", ready=True)


def test_one_that_leaves_does_not_count():
    leaving = ready_pod("a")
    leaving["metadata"]["deletionTimestamp"] = time(0)
    found = view(leaving)
    assert found == ComponentView("inference", False, message="pod a is ending")


def test_what_is_not_there_or_not_wanted():
    assert component_view("buffer", None, (), NOWHERE).message == "is not created yet"
    assert component_view("trainer", workload(replicas=0), (), NOWHERE) is None


def test_the_scale():
    leaving = ready_pod("c")
    leaving["metadata"]["deletionTimestamp"] = time(0)
    pods = [ready_pod("a"), unscheduled(FULL), leaving]
    body = workload(replicas=2, updatedReplicas=1)
    assert scale(body, pods, {"b": "2", "a": "1"}) == Scale(2, 2, 1, 1, "a=1,b=2")
    body["metadata"]["generation"] = 3
    assert scale(body, pods, {}).updated == 0


def test_a_workload_that_does_not_say_what_it_observed_counts_as_it_is():
    body = workload(replicas=2, updatedReplicas=1)
    body["metadata"]["generation"] = 3
    del body["status"]["observedGeneration"]
    assert scale(body, [], {}).updated == 1


def leaving(*, seconds, **metadata):
    found = on_node(ready_pod("chat-buffer-0"))
    found["metadata"] |= {"deletionTimestamp": time(-seconds), **metadata}
    return found


@pytest.mark.parametrize(
    ("body", "message", "failing"),
    [
        (leaving(seconds=0), "is ending", False),
        (leaving(seconds=29), "is ending", False),
        (leaving(seconds=31), "node gpu-1 may not answer", True),
        (leaving(seconds=31, finalizers=["a/b"]), "held by a/b", True),
    ],
)
def test_a_pod_that_does_not_end_holds_up_its_successor(body, message, failing):
    found = view(body, of=workload("StatefulSet"))
    assert found.message.startswith("pod chat-buffer-0 ")
    assert message in found.message
    assert (found.ready, found.failing) == (False, failing)


@pytest.mark.parametrize(("seconds", "failing"), [(59, False), (61, True)])
def test_pods_that_nobody_creates(seconds, failing):
    since = NOW - timedelta(seconds=seconds)
    around = Surroundings(NOW, claims={}, events={}, missing={"inference": since})
    found = view(of=workload(replicas=2), around=around)
    assert found.message.startswith("0 of 2 pods are created")
    assert found.failing is failing


def since(body, **status):
    return {**body, "status": {**body["status"], **status}}


@pytest.mark.parametrize(("seconds", "failing"), [(59, False), (61, True)])
def test_pods_that_scheduler_and_kubelet_leave_alone(seconds, failing):
    forgotten = pod()
    forgotten["metadata"]["creationTimestamp"] = time(-seconds)
    assert view(forgotten).failing is failing
    bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": time(-seconds)}
    found = view(on_node(pod(conditions=[bound])))
    assert "waits for the kubelet of node gpu-1" in found.message
    assert found.failing is failing


@pytest.mark.parametrize(("minutes", "failing"), [(9, False), (11, True)])
def test_an_image_may_take_minutes_to_pull(minutes, failing):
    body = since(scheduled(container(waiting("ContainerCreating"))), startTime=time(-60 * minutes))
    found = view(body)
    assert "inference is being created" in found.message
    assert found.failing is failing


def gateway(generation=1, observed=1, **status):
    return {
        "metadata": {"creationTimestamp": time(-60), "generation": generation},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": observed, "replicas": 1, **status},
    }


def test_gateways_count_as_one_workload():
    one, other = gateway(updatedReplicas=1), gateway(generation=2, updatedReplicas=1)
    merged = together([one, other])

    assert scale(merged, [ready_pod("a"), ready_pod("b")], {"app": "gateway"}) == Scale(
        wanted=2, replicas=2, ready=2, updated=1, selector="app=gateway"
    )


def test_no_gateways_are_no_pods_wanted():
    merged = together([])

    assert component_view("inference", merged, [], NOWHERE) is None
    assert scale(merged, [], {}).wanted == 0
