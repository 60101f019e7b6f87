import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.desired import SPECS, deployment, objects

from aurora_operator.domain.objects.drift import APPLIED, needs_apply, stamped

DESIRED = stamped(
    {
        "metadata": {
            "name": "chat",
            "labels": {"a": "b"},
            "ownerReferences": [{"uid": "ours", "controller": True}],
        },
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
    live["metadata"]["ownerReferences"].insert(0, {"uid": "another"})
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
        (("metadata", "ownerReferences", 1, "controller"), False),
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


ALL = [
    pytest.param(made, id=f"{of}-{kind}-{name}")
    for of, spec in SPECS.items()
    for (kind, name), made in objects(deployment(**spec)).items()
]


def fields(value, path=()):
    """The path of each field and element, whatever it holds."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from fields(inner, (*path, key))


def at(value, path):
    for key in path:
        value = value[key]
    return value


def is_left_out_by_servers(made, path):
    """The zero values of a user's template."""
    return at(made, path) in ("", False, {}) and path[-1] in {
        "value", "note", "readOnly", "optional", "hostNetwork", "nodeSelector",
    }  # fmt: skip


@pytest.mark.parametrize("made", ALL)
def test_each_field_is_missed(made):
    assert not needs_apply(made, made)
    for path in fields(made):
        live = copy.deepcopy(made)
        del at(live, path[:-1])[path[-1]]
        assert needs_apply(made, live) != is_left_out_by_servers(made, path), path


@pytest.mark.parametrize("made", ALL)
def test_each_field_of_another_value_is_seen(made):
    for path in fields(made):
        live = copy.deepcopy(made)
        at(live, path[:-1])[path[-1]] = "another"
        assert needs_apply(made, live), path


@given(data=st.data(), made=st.sampled_from(ALL))
def test_what_servers_and_others_add_is_no_difference(data, made):
    (desired,) = made.values
    live = copy.deepcopy(desired)
    for path in list(fields(desired)):
        value = at(desired, path)
        # A NetworkPolicy's rules are the operator's alone.
        if isinstance(value, dict) and not {"ingress", "egress"} & set(path):
            at(live, path)[data.draw(st.sampled_from(["uid2", "other", "status"]))] = "added"
    assert not needs_apply(desired, live)


@pytest.mark.parametrize(
    ("desired", "live"),
    [("0.5", "500m"), ("1500m", "1.5"), ("1024Mi", "1Gi"), ("1e9", "1G"), ("0.5m", "500u"),
     (1, "1"), ("1.", "1"), (".5", "500m"), ("2E", "2000P")],
)  # fmt: skip
def test_quantities_are_numbers(desired, live):
    assert not needs_apply({"limits": {"cpu": desired}}, {"limits": {"cpu": live}})
    assert needs_apply({"limits": {"cpu": desired}}, {"limits": {"cpu": f"1{live}"}})
    # Elsewhere a text is a text.
    assert needs_apply({"value": desired}, {"value": live})


def test_a_way_that_anybody_opens_is_seen():
    rule = {"from": [{"podSelector": {"matchLabels": {"a": "b"}}}]}
    wider = copy.deepcopy(rule)
    wider["from"][0]["namespaceSelector"] = {}
    assert needs_apply({"spec": {"ingress": [rule]}}, {"spec": {"ingress": [wider]}})


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
