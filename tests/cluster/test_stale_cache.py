"""What was deleted while no watch saw it is noticed soon."""

import asyncio

from support.desired import SETTING
from support.manifest import MINIMAL

from aurora_operator.adapters.kubeconfig import load_configuration
from aurora_operator.adapters.kubernetes import KubernetesApi
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.credentials import Credentials
from aurora_operator.cluster.directory import Directory
from aurora_operator.cluster.engines import Engines
from aurora_operator.cluster.kinds import Key, is_owned_by
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.objects import ObjectReconciler


def test_what_an_earlier_deployment_had_takes_no_name(api_server, api_namespace):
    path = f"/apis/aurora.dev/v1alpha1/namespaces/{api_namespace}/auroradeployments"
    stored = api_server.request("POST", path, MINIMAL)
    key = Key(api_namespace, "chat")
    owner = {"kind": "AuroraDeployment", "name": "chat", "uid": "earlier", "controller": True}
    gone = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": "chat",
            "namespace": api_namespace,
            "uid": "gone",
            "resourceVersion": "1",
            "ownerReferences": [owner],
        },
    }

    async def reconcile():
        api = KubernetesApi(load_configuration(api_server.kubeconfig), connections=4)
        directory, children, metrics = Directory(), ChildStore(), Metrics()
        directory.remember(stored)
        children.remember(key, gone)
        reconciler = ObjectReconciler(
            api,
            directory,
            children,
            setting=SETTING,
            credentials=Credentials(api, metrics),
            engines=Engines(api, directory, on_change=lambda key: None),
            metrics=metrics,
            on_change=lambda key: None,
        )
        try:
            await reconciler.reconcile(key)
        finally:
            await api.close()
        return directory.get(key).problems

    assert asyncio.run(reconcile()) == ()
    accounts = f"/api/v1/namespaces/{api_namespace}/serviceaccounts/chat"
    assert is_owned_by(api_server.request("GET", accounts), stored["metadata"]["uid"])
