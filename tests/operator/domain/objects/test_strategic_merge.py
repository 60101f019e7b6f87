import copy

import pytest

from aurora_operator.domain.objects.strategic_merge import merged

BASE = {
    "containers": [
        {
            "name": "inference",
            "image": "ours",
            "env": [{"name": "A", "value": "1"}],
            "ports": [{"name": "grpc", "containerPort": 9000, "protocol": "TCP"}],
            "command": ["python"],
        }
    ],
    "volumes": [{"name": "tmp", "emptyDir": {}}],
    "tolerations": [{"key": "a"}],
}


@pytest.mark.parametrize(
    ("patch", "path", "expected"),
    [
        ({"nodeName": "n"}, ("nodeName",), "n"),
        ({"tolerations": [{"key": "b"}]}, ("tolerations",), [{"key": "b"}]),
        ({"tolerations": None}, ("tolerations",), None),
        ({"volumes": [{"name": "more"}]}, ("volumes", 1, "name"), "more"),
        ({"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]},
         ("volumes",), [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}]),
        ({"volumes": [{"name": "tmp", "$patch": "delete"}]}, ("volumes",), []),
        ({"containers": [{"name": "inference", "image": "theirs"}]},
         ("containers", 0, "image"), "theirs"),
        ({"containers": [{"name": "inference", "command": ["sh"]}]},
         ("containers", 0, "command"), ["sh"]),
        ({"containers": [{"name": "inference", "env": [{"name": "A", "value": "2"}]}]},
         ("containers", 0, "env"), [{"name": "A", "value": "2"}]),
        ({"containers": [{"name": "inference", "ports": [{"containerPort": 9000, "name": "g"}]}]},
         ("containers", 0, "ports", 0, "name"), "g"),
        ({"containers": [{"name": "sidecar"}]}, ("containers", 1, "name"), "sidecar"),
        ({"securityContext": {"fsGroup": 1}}, ("securityContext", "fsGroup"), 1),
    ],
)  # fmt: skip
def test_merges_as_kubectl_does(patch, path, expected):
    before = copy.deepcopy(BASE)
    found = merged(BASE, patch)
    for key in path:
        found = found.get(key) if isinstance(found, dict) else found[key]
    assert found == expected
    assert before == BASE


def test_what_is_added_has_no_nulls():
    added = {"name": "more", "env": [{"name": "A", "value": None}], "image": None}
    assert merged(BASE, {"containers": [added]})["containers"][1] == {
        "name": "more",
        "env": [{"name": "A"}],
    }
