"""The plugin's calls to the API server, with kubectl's own credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlencode

import urllib3
from kubernetes import config
from kubernetes.client import ApiClient, Configuration

from aurora_client._cli.run import CommandError

Json = dict[str, Any]

_TIMEOUT_SECONDS = 15.0
# A followed log may be silent for hours.
_FOLLOW_SECONDS = 86_400.0
_DEPLOYMENTS = "/apis/aurora.dev/v1alpha1"
_PLURAL = "auroradeployments"


class Cluster:
    """Every method raises CommandError on failure."""

    def __init__(self, namespace: str | None, context: str | None, kubeconfig: str | None) -> None:
        """For each None: what kubectl itself would choose."""
        configuration = Configuration()
        try:
            contexts, active = config.list_kube_config_contexts(  # type: ignore[no-untyped-call]
                kubeconfig
            )
            config.load_kube_config(  # type: ignore[no-untyped-call]
                kubeconfig, context, configuration
            )
        except (config.ConfigException, OSError) as error:
            raise CommandError(f"no access to a cluster: {error}") from error
        chosen = next((one for one in contexts if one["name"] == context), active)
        self.namespace: str = (
            namespace or cast(Json, chosen).get("context", {}).get("namespace") or "default"
        )
        self._client = ApiClient(configuration)

    def deployments(self, *, everywhere: bool) -> Sequence[Json]:
        path = f"{_DEPLOYMENTS}/{_PLURAL}" if everywhere else self._path()
        return cast(Sequence[Json], self._call("GET", path)["items"])

    def deployment(self, name: str) -> Json:
        return self._call("GET", f"{self._path()}/{name}")

    def patch(self, name: str, patch: Json) -> Json:
        """Applies a JSON merge patch to the deployment."""
        return self._call("PATCH", f"{self._path()}/{name}", body=patch)

    def pods(self, name: str) -> Sequence[Json]:
        """The pods of a deployment's components, sorted by name."""
        labels = f"app.kubernetes.io/managed-by=aurora-operator,app.kubernetes.io/instance={name}"
        return self.selected_pods(labels)

    def selected_pods(self, selector: str) -> Sequence[Json]:
        """The pods that have these labels, sorted by name."""
        path = f"/api/v1/namespaces/{self.namespace}/pods?{urlencode({'labelSelector': selector})}"
        items = cast(Sequence[Json], self._call("GET", path)["items"])
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    def log(self, pod: str, container: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """The container's log, in chunks as it grows."""
        query = {"container": container, "follow": str(follow).lower()}
        if tail is not None:
            query["tailLines"] = str(tail)
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log?{urlencode(query)}"
        timeout = urllib3.Timeout(
            connect=_TIMEOUT_SECONDS, read=_FOLLOW_SECONDS if follow else _TIMEOUT_SECONDS
        )
        response = self._request("GET", path, timeout=timeout, stream=True)
        try:
            # Whatever has arrived: a line shows as soon as it is written.
            while chunk := response.read1():
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise CommandError(f"the log of {pod} broke off: {error}") from error

    def _path(self) -> str:
        return f"{_DEPLOYMENTS}/namespaces/{self.namespace}/{_PLURAL}"

    def _call(self, verb: str, path: str, body: Json | None = None) -> Json:
        return cast(Json, json.loads(self._request(verb, path, body=body).data))

    def _request(
        self,
        verb: str,
        path: str,
        *,
        body: Json | None = None,
        timeout: float | urllib3.Timeout = _TIMEOUT_SECONDS,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "Content-Type": "application/merge-patch+json"}
        settings = self._client.configuration
        token = settings.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        try:
            response: urllib3.BaseHTTPResponse = self._client.rest_client.pool_manager.request(
                verb,
                f"{settings.host}{path}",
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=timeout,
                retries=False,
                preload_content=not stream,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise CommandError(
                f"the API server at {settings.host} cannot be reached: {error}"
            ) from error
        if response.status >= 300:
            raise CommandError(_refusal(response.data, response.status, path))
        return response


def _refusal(content: bytes, status: int, path: str) -> str:
    """The API server's message, or what its status means here."""
    try:
        answer: object = json.loads(content)
    except ValueError:
        answer = {}
    message = str(answer.get("message", "")) if isinstance(answer, Mapping) else ""
    if status == 404 and path.startswith(_DEPLOYMENTS) and "not found" not in message[:200]:
        return "the cluster knows no AuroraDeployments: install Aurora's chart first"
    return message or f"the API server answers {status}"
