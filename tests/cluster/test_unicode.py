"""Any text that the API server takes passes through the operator's requests unchanged."""

import asyncio

import pytest
from support.desired import deployment, objects

from aurora_operator.adapters.kubeconfig import load_configuration
from aurora_operator.adapters.kubernetes import KubernetesApi
from aurora_operator.cluster.kinds import CHILDREN, DEPLOYMENT, EVENT
from aurora_operator.domain.objects.drift import needs_apply

# Beyond U+FFFF; what YAML takes for a line break, or refuses; what looks like an escape.
TEXT = 'a🙂\U0010ffff \x00\x07\x7f\x80\x85\u2028\ufeff\uffff 世界 "\\ud83d\\\\🙂\n\t: #'


@pytest.fixture
def ask(api_server):
    """Runs a coroutine function with a client and returns its result."""

    async def asked(work):
        api = KubernetesApi(load_configuration(api_server.kubeconfig), connections=1)
        try:
            return await work(api)
        finally:
            await api.close()

    return lambda work: asyncio.run(asked(work))


def test_objects_are_applied_with_any_text(ask, api_namespace):
    env = [{"name": "TEXT", "value": TEXT}]
    template = {
        "metadata": {"annotations": {"note": TEXT}},
        "spec": {"containers": [{"name": "inference", "env": env}]},
    }
    made = objects(
        deployment(
            namespace=api_namespace,
            target={"uri": "pvc://models/世界/🙂"},
            inference={"podTemplate": template},
        )
    )["Deployment", "chat-inference"]

    async def apply(api):
        return await api.apply(CHILDREN["Deployment"], made)

    live = ask(apply)
    pod = live["spec"]["template"]
    assert pod["metadata"]["annotations"]["note"] == TEXT
    found = {each["name"]: each.get("value") for each in pod["spec"]["containers"][0]["env"]}
    assert found["TEXT"] == TEXT
    assert not needs_apply(made, live)


def test_status_and_events_carry_any_text(ask, api_server, api_namespace):
    spec = {
        "target": {"uri": "pvc://models/🙂"},
        "modelStore": {"pvc": {"claimName": "models"}},
        "buffer": {"embedded": {}},
    }
    body = {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": {"name": "chat", "namespace": api_namespace, "annotations": {"note": TEXT}},
        "spec": spec,
    }
    condition = {
        "type": "Degraded",
        "status": "True",
        "reason": "ComponentFailing",
        "message": TEXT,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }

    async def write(api):
        await api.create(DEPLOYMENT, body)
        patch = {"status": {"conditions": [condition]}}
        written = await api.patch_status(DEPLOYMENT, api_namespace, "chat", patch, manager="test")
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"namespace": api_namespace, "generateName": "chat."},
            "involvedObject": {"kind": DEPLOYMENT.kind, "namespace": api_namespace, "name": "chat"},
            "message": TEXT,
        }
        return written, await api.create(EVENT, event)

    written, event = ask(write)
    assert written["metadata"]["annotations"]["note"] == TEXT
    assert written["status"]["conditions"][0]["message"] == TEXT
    assert event["message"] == TEXT


def test_half_a_surrogate_pair_is_replaced(ask, api_namespace):
    body = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": "half",
            "namespace": api_namespace,
            "annotations": {"note": "a\ud83d"},
        },
    }

    async def apply(api):
        return await api.apply(CHILDREN["ServiceAccount"], body)

    assert ask(apply)["metadata"]["annotations"]["note"] == "a\ufffd"
