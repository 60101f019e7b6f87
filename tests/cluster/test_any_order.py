"""A deployment's last spec alone decides its objects, whatever came before."""

import contextlib
import copy
import json

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kubernetes.client.exceptions import ApiException
from support.deployments import wait_until

from aurora_operator.cluster.kinds import WATCHED

_EXAMPLES = 6

_REPLICAS = st.sampled_from([0, 1, 2, 3])
_INFERENCE = st.sampled_from(
    [
        {},
        {"maxBatch": 2},
        {"image": "aurora-inference:other"},
        {"autoscaling": {"maxReplicas": 3}},
        {"podTemplate": {"metadata": {"labels": {"team": "a"}}}},
        # Refused when the workload is applied, not before.
        {"podTemplate": {"spec": {"containers": [{"name": "inference", "unknown": 1}]}}},
    ]
)
_TRAINER = st.sampled_from([{}, {"suspend": True}, {"holdoutPercent": 10}])
_SECURITY = st.sampled_from([{}, {"tls": {"mode": "Disabled"}}])
_BUFFER = st.sampled_from(
    [{"embedded": {}}, {"embedded": {"appendfsync": "always"}}, {"external": {"url": "redis://r"}}]
)
_SPEC = st.fixed_dictionaries(
    {
        "replicas": _REPLICAS,
        "inference": _INFERENCE,
        "trainer": _TRAINER,
        "security": _SECURITY,
        "buffer": _BUFFER,
    }
)
# Refused at admission.
_INVALID = st.sampled_from(
    [{"replicas": -1}, {"buffer": {}}, {"inference": {"image": "NOT AN IMAGE"}}]
)
_STEP = st.one_of(
    st.tuples(st.just("apply"), _SPEC),
    st.tuples(st.just("refused"), _INVALID),
    st.tuples(st.just("delete"), st.none()),
    st.tuples(st.just("restart"), st.none()),
)


def is_bad(spec):
    return "unknown" in json.dumps(spec)


def children(deployments, name):
    """A deployment's objects, without what differs each time."""
    found = {}
    labels = f"app.kubernetes.io/instance={name}"
    for kind in WATCHED:
        for body in deployments.objects(kind.api_version, kind.plural, labels):
            if body["metadata"].get("ownerReferences", [{}])[0].get("kind") != "AuroraDeployment":
                continue
            own = body["metadata"]["name"].removeprefix(name)
            found[kind.kind, own] = _comparable(kind.kind, body, name)
    return found


def _comparable(kind, body, name):
    spec = copy.deepcopy(body.get("spec", {}))
    for key in ("clusterIP", "clusterIPs"):
        if spec.get(key) not in (None, "None", ["None"]):
            spec.pop(key, None)
    # Left to an autoscaler.
    if kind == "Deployment" and spec.get("replicas") is not None:
        spec.pop("replicas")
    return json.loads(json.dumps(spec).replace(name, "NAME"))


@settings(
    max_examples=_EXAMPLES,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(steps=st.lists(_STEP, min_size=1, max_size=5), last=_SPEC.filter(lambda s: not is_bad(s)))
def holds(deployments, operator, fresh_names, steps, last):
    name, fresh = next(fresh_names), next(fresh_names)
    for verb, spec in steps:
        match verb:
            case "apply":
                deployments.apply(name, **spec)
            case "refused":
                refused(deployments, name, spec)
            case "delete":
                with contextlib.suppress(ApiException):
                    deployments.delete(name)
            case "restart":
                operator.restart()
    deployments.apply(name, **last)
    deployments.apply(fresh, **last)
    for each in (name, fresh):
        deployments.await_status(
            lambda status, each=each: is_settled(deployments, each, status), each, seconds=60
        )
    # A generation is observed before its last object is applied.
    wait_until(
        lambda: not differing(deployments, name, fresh),
        why=lambda: differing(deployments, name, fresh),
    )
    for each in (name, fresh):
        deployments.delete(each)


def differing(deployments, name, fresh):
    """The objects in which the two deployments differ."""
    one, other = children(deployments, name), children(deployments, fresh)
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def refused(deployments, name, spec):
    with pytest.raises(ApiException):
        deployments.apply(name, **spec)


def is_settled(deployments, name, status):
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    generation = deployments.get(name)["metadata"]["generation"]
    return (
        status.get("observedGeneration") == generation
        and conditions.get("Degraded", {}).get("reason") != "ApplyRefused"
        and bool(children(deployments, name))
        and children(deployments, name).keys() == wanted(deployments.get(name)["spec"])
    )


def wanted(spec):
    """The kinds and names of a deployment's objects, without the deployment's name."""
    found = {
        ("ServiceAccount", ""),
        ("Deployment", "-inference"),
        ("Service", "-inference"),
        ("Service", "-inference-pods"),
        ("PodDisruptionBudget", "-inference"),
        ("Service", "-buffer"),
        ("StatefulSet", "-trainer"),
        ("Service", "-trainer"),
        *(("NetworkPolicy", f"-{component}") for component in ("inference", "buffer", "trainer")),
    }
    found.add(("StatefulSet" if "embedded" in spec["buffer"] else "Deployment", "-buffer"))
    if "autoscaling" in spec["inference"]:
        found.add(("HorizontalPodAutoscaler", "-inference"))
    return found


def test_the_last_spec_alone_decides(deployments, kubelet, operator):
    operator.start(namespaces=[deployments.namespace])
    fresh_names = (f"order-{number}-x" for number in range(10_000))
    holds(deployments, operator, fresh_names)


def test_deleted_while_the_operator_is_away(deployments, kubelet, operator):
    deployments.apply("gone")
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready("gone")
    operator.kill()
    operator.stop()
    deployments.delete("gone")
    deployments.apply("stays")
    operator.restart()
    deployments.await_ready("stays")
    deployments.await_status(
        lambda _: (
            not children(deployments, "gone")
            and not deployments.objects("v1", "pods", "app.kubernetes.io/instance=gone")
            and not deployments.is_there("v1", "secrets", "gone-ca")
        ),
        "stays",
    )
