"""What GitOps tools make of a deployment, by their own code, and what self-heal leaves alone."""

import copy
import json
import subprocess
from pathlib import Path

import pytest
import yaml
from support.manifest import MINIMAL

GITOPS = Path(__file__).parents[2] / "deploy/gitops"
OBJECTS = "/apis/aurora.dev/v1alpha1/namespaces/{}/auroradeployments"
SERVING = ("Ready", "True", "Serving")
STARTING = ("Ready", "False", "InferenceNotReady")
WELL = ("Degraded", "False", "AsExpected")
GOING = ("Reconciling", "True", "ComponentsStarting")
# The conditions, then the health in Argo CD, Flux and kstatus.
CASES = {
    "serving": ([SERVING, WELL], "Healthy", "Current", "Current"),
    "starting": ([STARTING, WELL, GOING], "Progressing", "InProgress", "InProgress"),
    "updating": ([SERVING, WELL, GOING], "Progressing", "InProgress", "InProgress"),
    "stalled": (
        [SERVING, ("Degraded", "True", "ApplyRefused"), ("Stalled", "True", "ApplyRefused")],
        *("Degraded", "Failed", "Failed"),
    ),
    "serving, but not learning": (
        [SERVING, ("Degraded", "True", "ComponentFailing")],
        *("Degraded", "Current", "Current"),
    ),
    "failing": (
        [
            STARTING,
            ("Degraded", "True", "ComponentFailing"),
            ("Stalled", "True", "ComponentFailing"),
        ],
        *("Degraded", "Failed", "Failed"),
    ),
    "of no replicas": (
        [("Ready", "False", "ScaledToZero"), WELL],
        *("Suspended", "Current", "InProgress"),
    ),
    "suspended": (
        [("Ready", "False", "Suspended"), WELL, ("Suspended", "True", "Suspended")],
        *("Suspended", "Current", "InProgress"),
    ),
    "about to be suspended": (
        [("Ready", "False", "Suspended"), WELL, ("Reconciling", "True", "Suspending")],
        *("Progressing", "InProgress", "InProgress"),
    ),
    "in a rollout": (
        [SERVING, WELL, ("Progressing", "True", "RolloutAnalyzing")],
        *("Healthy", "Current", "Current"),
    ),
}


@pytest.fixture
def judge(gitops_tools):
    """The health of an object in Argo CD, Flux and kstatus."""
    (flux,) = yaml.safe_load((GITOPS / "flux-health.yaml").read_text())
    lua = (GITOPS / "argocd-health.lua").read_text()

    def judge(body):
        asked = {"object": body, "lua": lua, "flux": flux}
        result = subprocess.run(
            [gitops_tools], input=json.dumps(asked), capture_output=True, text=True, timeout=60
        )
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        return answer["argo"]["status"], answer["flux"], answer["kstatus"]

    return judge


@pytest.fixture
def stored(api_server, api_namespace):
    """Creates a deployment, and sets its conditions as the operator does."""
    objects = OBJECTS.format(api_namespace)

    def stored(conditions=None, *, behind=0):
        body = api_server.request("POST", objects, MINIMAL)
        if conditions is None:
            return api_server.request("GET", f"{objects}/chat")
        observed = body["metadata"]["generation"] - behind
        body["status"] = {
            "observedGeneration": observed,
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                    "observedGeneration": observed,
                }
                for kind, status, reason in conditions
            ],
        }
        return api_server.request("PUT", f"{objects}/chat/status", body)

    return stored


@pytest.mark.parametrize("case", CASES)
def test_the_health_of_a_deployment(judge, stored, case):
    conditions, *expected = CASES[case]

    assert judge(stored(conditions)) == tuple(expected)


def test_nobody_has_seen_a_new_deployment(judge, stored):
    body = stored()

    (ready,) = body["status"]["conditions"]
    assert (ready["type"], ready["status"]) == ("Ready", "Unknown")
    assert judge(body) == ("Progressing", "InProgress", "InProgress")


def test_nobody_has_seen_a_changed_deployment(judge, stored):
    expected = ("Progressing", "InProgress", "InProgress")

    assert judge(stored([SERVING, WELL], behind=1)) == expected


def applied(server, objects, document, manager):
    path = f"{objects}/chat?fieldManager={manager}&force=true"
    return server.request("PATCH", path, document)["spec"]


def steered(spec):
    return spec["replicas"], spec["suspend"], spec["rollout"]["paused"]


def test_self_heal_leaves_out_what_the_manifest_does(api_server, api_namespace, kubectl):
    objects = OBJECTS.format(api_namespace)
    applied(api_server, objects, MINIMAL, "argocd-controller")
    access = [f"--kubeconfig={api_server.kubeconfig}", f"--namespace={api_namespace}"]
    subprocess.run([kubectl, *access, "scale", "adep/chat", "--replicas=3"], check=True, timeout=60)
    patch = json.dumps({"spec": {"suspend": True, "rollout": {"paused": True}}})
    subprocess.run(
        [kubectl, *access, "patch", "adep", "chat", "--type=merge", f"--patch={patch}"],
        check=True,
        timeout=60,
    )

    healed = applied(api_server, objects, MINIMAL, "argocd-controller")
    assert steered(healed) == (3, True, True)

    document = copy.deepcopy(MINIMAL)
    document["spec"] |= {"replicas": 2, "suspend": False, "rollout": {"paused": False}}
    healed = applied(api_server, objects, document, "argocd-controller")
    assert steered(healed) == (2, False, False)


def test_the_page_is_short_and_names_the_files():
    text = (GITOPS.parents[1] / "docs/gitops.md").read_text()

    assert len(text.splitlines()) <= 150
    assert all(f"../deploy/gitops/{path.name}" in text for path in GITOPS.iterdir())
