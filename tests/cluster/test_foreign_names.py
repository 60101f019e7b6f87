"""An object of another owner that has a child's name is left alone, and the status says so."""

import asyncio

import pytest

from aurora_common.errors import ConflictError
from aurora_operator.adapters.kubeconfig import load_configuration
from aurora_operator.adapters.kubernetes import Kind, KubernetesApi

CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")


@pytest.mark.parametrize(
    ("plural", "body"),
    [
        ("serviceaccounts", {"kind": "ServiceAccount", "metadata": {"name": "chat"}}),
        ("secrets", {"kind": "Secret", "metadata": {"name": "chat-ca"}, "stringData": {"a": "b"}}),
        ("secrets", {"kind": "Secret", "metadata": {"name": "chat-trainer-tls"}}),
    ],
)
def test_a_foreign_object_is_left_alone(
    control_plane, deployments, kubelet, operator, plural, body
):
    foreign = deployments.apply_object("v1", plural, {"apiVersion": "v1", **body})
    operator.start(namespaces=[deployments.namespace])
    deployments.apply("chat")

    deployments.await_status(
        lambda status: "NameTaken" in {one["reason"] for one in status.get("conditions", ())}
    )
    name = body["metadata"]["name"]
    assert deployments.object("v1", plural, name) == foreign
    assert body["kind"] in deployments.condition("Degraded")["message"]
    # No pod runs as that account or mounts that Secret.
    assert deployments.objects("apps/v1", "deployments") == []
    assert deployments.objects("apps/v1", "statefulsets") == []

    path = f"/api/v1/namespaces/{deployments.namespace}/{plural}/{name}"
    control_plane.request("DELETE", path)
    deployments.await_ready(seconds=60.0)


def test_an_existing_object_is_not_created(api_server, api_namespace):
    def config_map(value):
        metadata = {"namespace": api_namespace, "name": "one"}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": value}}

    async def make_twice():
        api = KubernetesApi(load_configuration(api_server.kubeconfig), connections=1)
        try:
            made = await api.apply_new(CONFIG_MAP, config_map("first"))
            with pytest.raises(ConflictError):
                await api.apply_new(CONFIG_MAP, config_map("second"))
            # Its own object is applied again like any other.
            assert await api.apply(CONFIG_MAP, config_map("first")) == made
            return await api.get(CONFIG_MAP, api_namespace, "one")
        finally:
            await api.close()

    assert asyncio.run(make_twice())["data"] == {"a": "first"}
