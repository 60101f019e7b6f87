"""The least number of ready endpoints of a Service during a block."""

from __future__ import annotations

import threading
from typing import Self

from support.control_plane import ApiServer, client_of, request

_POLL_SECONDS = 0.1


class EndpointWatch:
    """Polls ten times a second the endpoints that kube-proxy uses."""

    def __init__(self, api: ApiServer, namespace: str, service: str) -> None:
        self._client = client_of(api.kubeconfig)
        self._path = (
            f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
            f"?labelSelector=kubernetes.io/service-name%3D{service}"
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.fewest = 1_000_000

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def _look(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            slices = request(self._client, "GET", self._path)["items"]
            ready = [
                endpoint
                for each in slices
                for endpoint in each.get("endpoints") or ()
                if endpoint["conditions"].get("ready")
            ]
            self.fewest = min(self.fewest, len(ready))
