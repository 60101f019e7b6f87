"""`kubectl aurora` against a real API server; the operator's part is played by status patches."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from support.manifest import MINIMAL

STATUS = {
    "replicas": 2,
    "readyReplicas": 1,
    "stable": {"checkpoint": "ckpt-1", "digest": "sha256:1", "uri": "file:///1"},
    "rollout": {
        "id": "chat-2",
        "state": "Analyzing",
        "candidate": {"checkpoint": "ckpt-2", "digest": "sha256:2", "uri": "u", "sequence": 2},
        "step": 1,
        "withoutStable": False,
        "plan": {"stepsPercent": [5, 20]},
        "evidence": {
            "requests": 40, "logE": "3.91", "logHarm": "-1.2", "threshold": "4.6052",
            "effectBps": 182, "ciBps": [-12, 371],
        },
    },
    "history": [
        {
            "id": "chat-1", "checkpoint": "ckpt-0", "digest": "sha256:0", "outcome": "RolledBack",
            "reason": "AcceptanceHarm", "effectBps": -40, "requests": 300,
            "at": "2026-01-01T00:00:00Z",
        }
    ],
    "conditions": [
        {
            "type": "Ready", "status": "False", "reason": "InferenceNotReady",
            "message": "1 of 2 pods serve", "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": 1,
        }
    ],
}  # fmt: skip


@pytest.fixture
def objects(api_server, api_namespace):
    path = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    api_server.request("POST", path, MINIMAL)
    return path


@pytest.fixture
def set_status(api_server, objects):
    def set_status(status):
        stored = api_server.request("GET", f"{objects}/chat")
        api_server.request("PUT", f"{objects}/chat/status", {**stored, "status": status})

    return set_status


@pytest.fixture
def aurora(api_server, api_namespace, kubectl):
    """`kubectl aurora …`, found by kubectl itself on the PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(api_server.kubeconfig)}

    def aurora(command, *arguments):
        return subprocess.run(
            [kubectl, "aurora", command, *arguments, "-n", api_namespace],
            env=environment,
            text=True,
            capture_output=True,
            timeout=60,
        )

    return aurora


TRAINER = {
    "phase": "Training",
    "since": "2026-01-01T00:00:00Z",
    "minNewTrajectories": 48,
    "stepsPerRound": 60,
    "checkpoint": "ckpt-2",
    "acceptanceBps": 6250,
}


def test_describes_a_rollout(aurora, set_status):
    set_status({**STATUS, "trainer": TRAINER})
    told = aurora("get", "chat")
    assert told.returncode == 0, told.stderr
    for part in ("ckpt-1", "chat-2", "Analyzing", "ckpt-2", "step 2 of 2", "3.91", "4.61",
                 "1 of 2 pods serve", "AcceptanceHarm", "inference  no pod",
                 "training for 60 steps since", "62.5% accepted on held-out"):  # fmt: skip
        assert part in told.stdout
    assert "\x1b" not in told.stdout


def test_lists(aurora, set_status):
    assert "chat" in aurora("get").stdout
    set_status(STATUS)
    row = aurora("get").stdout.splitlines()[1].split()
    assert row[:4] == ["chat", "1/2", "InferenceNotReady", "ckpt-1"]
    assert row[4:7] == ["ckpt-2", "Analyzing", "3.91/4.61"]
    stored = json.loads(aurora("get", "-o", "json").stdout)
    assert stored["items"][0]["metadata"]["name"] == "chat"


def test_lists_every_namespace(aurora, objects):
    told = aurora("get", "--all-namespaces").stdout
    assert told.splitlines()[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert objects.split("/")[5] in told


def test_drafts(aurora, set_status):
    set_status(STATUS)
    told = aurora("drafts", "chat").stdout
    assert [line.split()[:2] for line in told.splitlines()[1:]] == [
        ["ckpt-2", "Analyzing"],
        ["ckpt-0", "RolledBack"],
        ["ckpt-1", "stable"],
    ]


@pytest.mark.parametrize("order", ["abort", "promote"])
@pytest.mark.parametrize("outcome", ["Done", "Refused"])
def test_a_command_waits_for_its_answer(aurora, set_status, api_server, objects, order, outcome):
    set_status(STATUS)
    results = []
    asking = threading.Thread(target=lambda: results.append(aurora(order, "chat")))
    asking.start()

    def was_asked():
        annotations = api_server.request("GET", f"{objects}/chat")["metadata"].get("annotations")
        return (annotations or {}).get("aurora.dev/command") == f"{order}/chat-2"

    api_server.await_that(was_asked, "the order is written")
    answer = {"request": f"{order}/chat-2", "outcome": outcome, "message": "too late",
              "at": "2026-01-01T00:00:00Z"}  # fmt: skip
    set_status({**STATUS, "lastCommand": answer})
    asking.join(60)
    (told,) = results
    assert told.returncode == (0 if outcome == "Done" else 1)
    assert ("done" in told.stdout) == (outcome == "Done")
    assert ("too late" in told.stderr) == (outcome == "Refused")


def test_pauses_and_resumes(aurora, api_server, objects):
    for command, paused in (("pause", True), ("resume", False)):
        assert aurora(command, "chat").returncode == 0
        assert api_server.request("GET", f"{objects}/chat")["spec"]["rollout"]["paused"] is paused


def test_suspends_and_resumes_what_was_suspended_first(aurora, api_server, objects):
    def spec():
        return api_server.request("GET", f"{objects}/chat")["spec"]

    assert aurora("suspend", "chat").stdout == "chat suspended\n"
    assert aurora("pause", "chat").returncode == 0
    assert (spec()["suspend"], spec()["rollout"]["paused"]) == (True, True)

    told = aurora("resume", "chat")
    assert told.stdout == "chat resumed; its rollouts are paused: resume again\n"
    assert (spec()["suspend"], spec()["rollout"]["paused"]) == (False, True)

    assert aurora("resume", "chat").stdout == "chat resumed\n"
    assert (spec()["suspend"], spec()["rollout"]["paused"]) == (False, False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("get", "nobody"), '"nobody" not found'),
        (("abort", "chat"), "no rollout in progress: nothing to abort"),
        (("logs", "chat"), "has no inference pod"),
        (("logs", "nobody"), '"nobody" not found'),
        (("logs", "chat", "-c", "operator"), "operator"),
        (("nonsense",), "nonsense"),
    ],
)
def test_reports_an_error_in_one_line(aurora, objects, arguments, says):
    told = aurora(*arguments)
    assert told.returncode == 1
    assert says in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def test_attach_says_what_a_vllm_lacks(aurora, api_server, api_namespace):
    confined = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "vllm-0", "labels": {"app": "vllm"}},
        "spec": {
            "serviceAccountName": "owner",
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {"name": "vllm", "image": "vllm/vllm-openai:v0.32.0", "securityContext": confined}
            ],
        },
    }
    # The namespace's own account may not exist yet.
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "owner"}}
    for plural, body in (("serviceaccounts", account), ("pods", pod)):
        api_server.request("POST", f"/api/v1/namespaces/{api_namespace}/{plural}", body)
    labels = ("--selector", "app=vllm", "--claim", "models")

    checked = aurora("attach", "--check", *labels)
    assert checked.returncode == 1, checked.stderr
    assert checked.stdout.startswith("vllm-0  lacks")
    assert "--worker-extension-cls aurora_vllm.worker.AuroraWorker" in checked.stdout

    printed = aurora("attach", *labels)
    assert printed.returncode == 0, printed.stderr
    made = yaml.safe_load(printed.stdout)["spec"]["template"]["spec"]
    assert made["initContainers"][0]["image"].startswith("aurora-inference:")

    none = aurora("attach", "--check", "--selector", "app=other", "--claim", "models")
    assert none.returncode == 1
    assert "has the labels app=other" in none.stderr
