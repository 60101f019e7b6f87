"""Whatever a deployment owns is back within ten seconds of its deletion."""

import pytest
from support.deployments import wait_until
from support.proxy import ApiFaults

from aurora_operator.cluster.kinds import SECRET, SELECTOR, WATCHED

KINDS = (*WATCHED, SECRET)
SECONDS = 10
KEY = "tls.key"


@pytest.fixture
def chat(deployments, kubelet, operator):
    """A deployment that has an object of each kind."""
    deployments.apply(inference={"autoscaling": {"maxReplicas": 2}})
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    return deployments


def owned(chat):
    """The uid of each object, by kind and name."""
    return {
        (kind, each["metadata"]["name"]): each["metadata"]["uid"]
        for kind in KINDS
        for each in chat.objects(kind.api_version, kind.plural, SELECTOR)
        if "deletionTimestamp" not in each["metadata"]
    }


def test_every_deleted_object_is_back(chat):
    before = owned(chat)
    assert {kind for kind, _ in before} == set(KINDS)

    for kind, name in before:
        chat.delete_object(kind.api_version, kind.plural, name)

    def restored():
        after = owned(chat)
        return after.keys() == before.keys() and not set(after.values()) & set(before.values())

    wait_until(restored, seconds=SECONDS, why=lambda: before.keys() - owned(chat).keys())


def test_a_changed_secret_is_mended(chat):
    name, bad = "chat-inference-tls", "bm9uZQ=="
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls"}
    chat.apply_object("v1", "secrets", {**secret, "metadata": {"name": name}, "data": {KEY: bad}})

    wait_until(lambda: chat.object("v1", "secrets", name)["data"][KEY] != bad, seconds=SECONDS)


def test_what_was_deleted_while_the_watches_were_lost_is_back(
    deployments, kubelet, proxy, proxied_operator
):
    deployments.apply()
    proxied_operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()

    def service():
        found = deployments.objects("v1", "services", SELECTOR)
        return {each["metadata"]["name"]: each["metadata"]["uid"] for each in found}

    before = service()["chat-buffer"]
    proxy.faults = ApiFaults(dropped=1.0, cut=1.0, expired=1.0)
    deployments.delete_object("v1", "services", "chat-buffer")
    wait_until(lambda: proxy.done["expired"] and proxy.done["dropped"])
    proxy.reset()

    wait_until(lambda: service().get("chat-buffer", before) != before, seconds=SECONDS)
