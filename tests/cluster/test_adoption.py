"""A deployment takes over what an earlier one of its name left, if it is told to."""

from support.deployments import wait_until

ADOPT = {"aurora.dev/adopt": "true"}
PATH = "/apis/aurora.dev/v1alpha1/namespaces/{}/auroradeployments/chat"


def pods(chat):
    return {
        pod["metadata"]["uid"]
        for component in ("inference", "buffer", "trainer")
        for pod in chat.pods(component)
    }


def is_fine(chat):
    return chat.condition("Degraded").get("status") == "False"


def test_what_an_orphaning_deletion_left_is_adopted(control_plane, deployments, kubelet, operator):
    deployments.apply()
    operator.start(namespaces=[deployments.namespace])
    deployments.await_ready()
    wait_until(lambda: is_fine(deployments))
    before = pods(deployments)
    authority = deployments.object("v1", "secrets", "chat-ca")["data"]

    path = PATH.format(deployments.namespace)
    control_plane.request("DELETE", f"{path}?propagationPolicy=Orphan")
    wait_until(lambda: not deployments.is_there("aurora.dev/v1alpha1", "auroradeployments", "chat"))
    deployments.apply()
    wait_until(lambda: deployments.condition("Degraded").get("reason") == "NameTaken")
    assert 'aurora.dev/adopt: "true"' in deployments.condition("Degraded")["message"]

    deployments.annotate("chat", ADOPT)
    deployments.await_ready()
    wait_until(lambda: is_fine(deployments))
    assert pods(deployments) == before
    assert deployments.object("v1", "secrets", "chat-ca")["data"] == authority
    uid = deployments.get()["metadata"]["uid"]
    for version, plural in (("v1", "secrets"), ("v1", "services"), ("apps/v1", "statefulsets")):
        for body in deployments.objects(version, plural):
            assert [each["uid"] for each in body["metadata"]["ownerReferences"]] == [uid]


def test_what_others_own_is_not_adopted(deployments, kubelet, operator):
    labels = {"app.kubernetes.io/managed-by": "Helm", "app.kubernetes.io/instance": "chat"}
    account = {"kind": "ServiceAccount", "metadata": {"name": "chat", "labels": labels}}
    foreign = deployments.apply_object("v1", "serviceaccounts", {"apiVersion": "v1", **account})
    deployments.apply()
    deployments.annotate("chat", ADOPT)
    operator.start(namespaces=[deployments.namespace])

    wait_until(lambda: deployments.condition("Degraded").get("reason") == "NameTaken")
    assert deployments.object("v1", "serviceaccounts", "chat") == foreign
