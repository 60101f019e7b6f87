"""How the operator starts while the API server is not fully available."""

import asyncio

from kubernetes.client import Configuration

from aurora_common.errors import UnavailableError
from aurora_operator.cluster import operator
from aurora_operator.cluster.kinds import DEPLOYMENT
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.operator import ClusterOperator

BODY = {
    "apiVersion": DEPLOYMENT.api_version,
    "kind": DEPLOYMENT.kind,
    "metadata": {
        "namespace": "default",
        "name": "chat",
        "uid": "u-1",
        "resourceVersion": "1",
        "generation": 1,
    },
    "spec": {},
}


class _Api:
    """Serves one deployment, and fails for cert-manager's kinds."""

    def __init__(self) -> None:
        self.asked = 0
        self.asked_often = asyncio.Event()

    async def served(self, api_version):
        if api_version == DEPLOYMENT.api_version:
            return frozenset({DEPLOYMENT.plural})
        self.asked += 1
        if self.asked == 20:
            self.asked_often.set()
        raise UnavailableError("the API server is overloaded")

    async def pages(self, kind, namespace, *, labels=""):
        yield [BODY] if kind is DEPLOYMENT else []


async def test_it_waits_for_an_unavailable_api_server_and_ends_when_cancelled(monkeypatch):
    monkeypatch.setattr(operator, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(operator, "_STALLED_SECONDS", 0.05)
    api = _Api()
    found = ClusterOperator(
        Configuration(),
        api,
        namespaces=(),
        setting=None,
        identity="me",
        installation="system/aurora",
        metrics=Metrics(),
    )
    task = asyncio.create_task(found.run())
    async with asyncio.timeout(5):
        await api.asked_often.wait()
    assert not task.done()
    # Objects wait until all caches are primed: a restart would not help.
    assert found.is_well
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
