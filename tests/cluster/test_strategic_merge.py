"""A podTemplate is merged as the API server merges a strategic patch."""

import json
import subprocess

import pytest
from support.desired import SPECS, deployment, objects

from aurora_operator.cluster.kinds import CHILDREN
from aurora_operator.domain.objects.strategic_merge import MERGE_KEYS

_SPREAD = {"whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 1}
# Patches of a PodSpec, by what they exercise.
PATCHES = {
    "everything": SPECS["template"]["inference"]["podTemplate"]["spec"],
    "null removes": {
        "enableServiceLinks": None,
        "securityContext": {"fsGroup": None},
        "containers": [{"name": "inference", "livenessProbe": None, "lifecycle": None}],
    },
    "a list's element goes": {
        "topologySpreadConstraints": [
            {"$patch": "delete", "topologyKey": "kubernetes.io/hostname"},
        ],
        "containers": [
            {
                "name": "inference",
                "env": [{"$patch": "delete", "name": "HOME"}],
                "ports": [{"$patch": "delete", "containerPort": 9001}],
                "volumeMounts": [{"$patch": "delete", "mountPath": "/tmp"}],
            }
        ],
    },
    "what is not there goes": {"volumes": [{"$patch": "delete", "name": "none"}]},
    "a list of its own is replaced": {
        "tolerations": [{"key": "a", "operator": "Exists"}],
        "containers": [{"name": "inference", "command": ["sh"], "args": ["-c", "true"]}],
    },
    "elements are changed": {
        "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname", "maxSkew": 3}],
        "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
        "containers": [
            {
                "name": "inference",
                "env": [{"name": "HOME", "value": "/home"}],
                "ports": [{"containerPort": 9001, "hostIP": "127.0.0.1"}],
                "volumeMounts": [{"mountPath": "/tmp", "name": "tmp", "subPath": "own"}],
            }
        ],
    },
    "elements are added": {
        "topologySpreadConstraints": [{"topologyKey": "zone", **_SPREAD}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}],
        "imagePullSecrets": [{"name": "registry"}],
        "containers": [
            {"name": "inference", "ports": [{"containerPort": 7, "protocol": "UDP"}]},
            # Confined already, as Aurora would confine it.
            {
                "name": "sidecar",
                "image": "sidecar:1",
                "env": [{"name": "A", "value": None}],
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
            },
        ],
    },
}


@pytest.fixture
def patched(api_server, kubectl):
    """The API server's merge of a Deployment's template and a patch of its spec."""

    def patched(made, patch):
        metadata = made["metadata"]
        body = {"spec": {"template": {"spec": patch}}}
        told = subprocess.run(
            [
                kubectl,
                f"--kubeconfig={api_server.kubeconfig}",
                f"--namespace={metadata['namespace']}",
                *("patch", "deployment", metadata["name"], "--type=strategic"),
                *("--dry-run=server", "--output=json", f"--patch={json.dumps(body)}"),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)["spec"]["template"]["spec"]

    return patched


@pytest.mark.parametrize("patch", PATCHES.values(), ids=PATCHES)
def test_merges_as_the_api_server_does(api_server, api_namespace, patched, patch):
    def apply(template, query):
        spec = {"inference": {"podTemplate": {"spec": template}}}
        made = objects(deployment(namespace=api_namespace, **spec))["Deployment", "chat-inference"]
        path = CHILDREN["Deployment"].path(api_namespace, "chat-inference")
        return api_server.request("PATCH", f"{path}?fieldManager=operator{query}", made)

    plain = apply({}, "")
    ours = apply(patch, "&dryRun=All")["spec"]["template"]["spec"]
    assert in_order(ours) == in_order(patched(plain, patch))


def in_order(value, key=""):
    """Sorts lists whose order does not matter."""
    if isinstance(value, dict):
        return {name: in_order(inner, name) for name, inner in value.items()}
    if not isinstance(value, list):
        return value
    found = [in_order(element) for element in value]
    if key not in MERGE_KEYS:
        return found
    return sorted(found, key=lambda element: str(element[MERGE_KEYS[key]]))
