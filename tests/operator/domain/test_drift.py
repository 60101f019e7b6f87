import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_operator.domain.drift import APPLIED, needs_apply, stamped

DESIRED = stamped(
    {
        "metadata": {"name": "chat", "labels": {"a": "b"}},
        "spec": {
            "replicas": 2,
            "ports": [{"name": "grpc", "port": 9000, "targetPort": "grpc", "protocol": "TCP"}],
            "template": {
                "containers": [
                    {
                        "name": "inference",
                        "command": ["python", "-m"],
                        "resources": {"limits": {"cpu": "0.5", "memory": "1024Mi"}},
                        "volumeMounts": [{"mountPath": "/tmp", "name": "tmp", "readOnly": False}],
                    }
                ],
                "tolerations": [{"key": "a"}],
                "volumes": [{"name": "tmp", "emptyDir": {}}],
            },
        },
    }
)


def defaulted():
    """What an API server makes of it: quantities in their own form, defaults, other managers."""
    live = copy.deepcopy(DESIRED)
    live["metadata"] |= {"uid": "u", "resourceVersion": "7", "generation": 1}
    live["metadata"]["annotations"]["kubernetes.io/other"] = "x"
    live["spec"]["ports"][0]["nodePort"] = 30000
    container = live["spec"]["template"]["containers"][0]
    container["resources"] = {"limits": {"cpu": "500m", "memory": "1Gi"}}
    container["imagePullPolicy"] = "Always"
    del container["volumeMounts"][0]["readOnly"]
    live["spec"]["template"]["containers"].insert(0, {"name": "injected"})
    live["status"] = {"replicas": 2}
    return live


def test_what_the_server_adds_is_not_a_difference():
    assert not needs_apply(DESIRED, defaulted())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), 3),
        (("metadata", "labels", "a"), "c"),
        (("metadata", "annotations", APPLIED), "0"),
        (("spec", "ports", 0, "targetPort"), "other"),
        (("spec", "template", "containers", 1, "command"), ["python", "-m", "more"]),
        (("spec", "template", "containers", 1, "resources", "limits", "cpu"), "501m"),
        (("spec", "template", "containers", 1, "volumeMounts", 0, "readOnly"), True),
        (("spec", "template", "tolerations"), []),
        (("spec", "template", "tolerations"), [{"key": "a"}, {"key": "b"}]),
        (("spec", "template", "volumes"), []),
    ],
)
def test_what_somebody_changed_is(path, value):
    live = defaulted()
    place = live
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert needs_apply(DESIRED, live)


_JSON = st.recursive(
    st.integers(1, 9) | st.sampled_from(["a", "1Gi", "0.5"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["limits", "volumes", "name", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(spec=_JSON, other=_JSON)
def test_an_object_as_applied_needs_nothing_and_another_one_is_seen(spec, other):
    desired = stamped({"metadata": {"name": "n"}, "spec": spec})
    assert not needs_apply(desired, desired)
    changed = stamped({"metadata": {"name": "n"}, "spec": other})
    assert needs_apply(changed, desired) == (spec != other)
