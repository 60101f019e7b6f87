"""The Kubernetes API in JSON: few verbs, a deadline on each call, errors as AuroraErrors."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes import config
from kubernetes.client import Configuration
from yarl import URL

from aurora_common.errors import (
    AuroraError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from aurora_operator.domain.objects.metadata import MANAGER

FIELD_MANAGER = MANAGER

Json = dict[str, Any]

_TIMEOUT_SECONDS = 15.0
_PAGE = 500
_SMALL_PAGE = 100
# Before the first write of all.
_NO_VERSION = "1"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
# Names and labels alone, where the content does not matter.
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


class ApiRefusedError(InvalidInputError):
    """The API server does not take the object, or not from us: trying again does not help."""


class ApiBusyError(UnavailableError):
    """The API server asks for patience, or cannot be reached."""

    def __init__(self, message: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of namespaced object, as the API server serves it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The path of the object, or of all those in `namespace` (None: in every one)."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace)]
        parts += [part for part in (self.plural, quote(name), subresource) if part]
        return "/".join(parts)


def load_configuration(kubeconfig: Path | None) -> Configuration:
    """How to reach the cluster that `kubeconfig` names, or the one that this pod runs in.

    Raises InvalidInputError where neither is to be had.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None:
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            source = str(kubeconfig)
            config.load_kube_config(source, None, configuration)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise InvalidInputError(f"no access to a cluster: {error}") from error
    return configuration


def bearer(configuration: Configuration) -> str | None:
    """The Authorization header's value at this moment; a pod's token is replaced now and then.

    Raises ApiBusyError where there is none at this moment.
    """
    try:
        value: str | None = configuration.get_api_key_with_prefix(
            "BearerToken", alias="authorization"
        )
    except Exception as error:
        # A kubeconfig may name any program that gives tokens, and each fails in its own way.
        raise ApiBusyError(f"no token for the Kubernetes API: {error}") from error
    return value


def _tls(configuration: Configuration) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class KubernetesApi:
    """One client with its own connections, made inside the event loop that it uses.

    Each method raises AuroraErrors only: NotFoundError, ConflictError (another version, or a name
    that is taken), ApiRefusedError, ApiBusyError. At most `connections` calls are under way at
    once; the deadline of a call begins when it is its turn.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        connections: int,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._configuration = configuration
        self._turn = asyncio.Semaphore(connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=_tls(configuration), limit=0),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        )

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        return await self._call("GET", kind.path(namespace, name))

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
        metadata_only: bool = False,
    ) -> list[Json]:
        """Every object that the selectors take."""
        accept = _METADATA if metadata_only else _JSON
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        return [body async for page in self._pages(kind, namespace, query, accept) for body in page]

    def pages(
        self, kind: Kind, namespace: str | None, *, labels: str = ""
    ) -> AsyncIterator[Sequence[Json]]:
        """Every object that the selector takes, few at a time: thousands need much memory."""
        query = {"labelSelector": labels, "limit": str(_SMALL_PAGE)}
        return self._pages(kind, namespace, query, _JSON)

    async def _pages(
        self, kind: Kind, namespace: str | None, query: dict[str, str], accept: str
    ) -> AsyncIterator[Sequence[Json]]:
        while True:
            page = await self._call("GET", kind.path(namespace), query=query, accept=accept)
            # A list of metadata that is empty says null.
            yield page["items"] or []
            if not (rest := page["metadata"].get("continue")):
                return
            query["continue"] = rest

    async def apply(self, kind: Kind, body: Json, *, manager: str = FIELD_MANAGER) -> Json:
        """Server-side apply of what `body` says; fields that others set against it are taken."""
        metadata = body["metadata"]
        return await self._call(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": manager, "force": "true"},
            body=body,
            content_type=_APPLY,
        )

    async def apply_new(self, kind: Kind, body: Json) -> Json:
        """Server-side apply of an object that must not exist yet: else ConflictError."""
        # The version is compared with that of an object which exists, and with nothing else.
        metadata = {**body["metadata"], "resourceVersion": _NO_VERSION}
        return await self.apply(kind, {**body, "metadata": metadata})

    async def create(self, kind: Kind, body: Json) -> Json:
        path = kind.path(body["metadata"]["namespace"])
        return await self._call("POST", path, query=_MANAGER, body=body)

    async def replace(self, kind: Kind, body: Json) -> Json:
        """Puts `body` in the place of the version that its resourceVersion names."""
        metadata = body["metadata"]
        path = kind.path(metadata["namespace"], metadata["name"])
        return await self._call("PUT", path, query=_MANAGER, body=body)

    async def patch_status(
        self, kind: Kind, namespace: str, name: str, patch: Json, *, manager: str
    ) -> Json:
        """Merges `patch` into the status subresource."""
        return await self._call(
            "PATCH",
            kind.path(namespace, name, "status"),
            query={"fieldManager": manager},
            body=patch,
            content_type=_MERGE,
        )

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Deletes the object of that uid and what it owns; one that is gone already is fine."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", kind.path(namespace, name), body=body)
        except NotFoundError:
            return

    async def served(self, api_version: str) -> frozenset[str]:
        """The plurals that a group's version offers; none where it is not there at all."""
        root = "/api" if "/" not in api_version else "/apis"
        try:
            content = await self._call("GET", f"{root}/{api_version}")
        except NotFoundError:
            return frozenset()
        return frozenset(resource["name"] for resource in content["resources"])

    async def close(self) -> None:
        """Ends the connections, and with them the calls under way."""
        await self._session.close()

    async def _call(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content_type: str = _JSON,
        accept: str = _JSON,
    ) -> Json:
        url = f"{self._configuration.host}{path}"
        if query:
            url += f"?{urlencode(query)}"
        headers = {"Accept": accept, "User-Agent": FIELD_MANAGER, "Content-Type": content_type}
        if token := bearer(self._configuration):
            headers["Authorization"] = token
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        try:
            async with (
                self._turn,
                self._session.request(
                    verb, URL(url, encoded=True), data=data, headers=headers
                ) as response,
            ):
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            told = str(error) or type(error).__name__
            raise ApiBusyError(f"the Kubernetes API cannot be reached: {told}") from error
        if response.status >= 300:
            raise _error(response.status, content, response.headers)
        return _object(content)


def _object(content: bytes) -> Json:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ApiBusyError("the Kubernetes API answers with something not JSON") from error
    if not isinstance(found, dict):
        raise ApiBusyError("the Kubernetes API answers with something not an object")
    return found


_MANAGER = {"fieldManager": FIELD_MANAGER}
_BY_STATUS: Mapping[int, Callable[[str], AuroraError]] = {
    404: NotFoundError,
    409: ConflictError,
}
# A field that the kind does not have comes as an internal error.
_UNDECLARED = "failed to create typed patch object"


def _error(status: int, content: bytes, headers: Mapping[str, str]) -> AuroraError:
    """The AuroraError that an answer which is none stands for."""
    message = _message(content) or f"the Kubernetes API answers {status}"
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    if _UNDECLARED in message:
        return ApiRefusedError(message)
    # 401: a token that was just replaced; 410: a list that took too long.
    if status in (401, 408, 410, 429) or status >= 500:
        patience = headers.get("Retry-After", "")
        return ApiBusyError(message, float(patience) if patience.isdecimal() else None)
    return ApiRefusedError(message)


def _message(content: bytes) -> str:
    try:
        answer = json.loads(content)
    except ValueError:
        return content[:200].decode(errors="replace").strip()
    return str(answer.get("message", "")) if isinstance(answer, dict) else ""
