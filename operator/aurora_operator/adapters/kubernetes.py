"""A client of the Kubernetes API in JSON, with a deadline on each call."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.client import Configuration
from yarl import URL

from aurora_common.errors import AuroraError, NotFoundError
from aurora_operator.adapters.api_error import ApiBusyError, api_error
from aurora_operator.adapters.kubeconfig import bearer, tls_context
from aurora_operator.domain.objects.metadata import MANAGER

FIELD_MANAGER = MANAGER

Json = dict[str, Any]

_TIMEOUT_SECONDS = 15.0
# Asking for a token costs as much as a small call; a rotated one overlaps with the one before.
_TOKEN_SECONDS = 5.0
_TOO_MANY = 429
# A reconcile makes dozens of calls and fails with the first: of a server that fails now and then, a
# call takes more than one answer. POST is left to its caller, who knows whether twice does harm.
_IDEMPOTENT = frozenset({"GET", "PATCH", "DELETE"})
_TRIES = 3
_RETRY_SECONDS = 0.1
_PAGE = 500
_SMALL_PAGE = 100
# Older than any object.
_NO_VERSION = "1"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"
_TO_ESCAPE = re.compile(r"[\x7f-\uffff]")
# Names and labels without the content.
_METADATA = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of namespaced object."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The path of the object, or of all objects in `namespace` (None: in all namespaces)."""
        root = "/api" if "/" not in self.api_version else "/apis"
        parts = [root, self.api_version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace)]
        parts += [part for part in (self.plural, quote(name), subresource) if part]
        return "/".join(parts)


class KubernetesApi:
    """One client with its own connections, made inside the event loop that it uses.

    Methods raise AuroraErrors only: NotFoundError, ConflictError (another version, or a name that
    is taken), ApiRefusedError, ApiBusyError. At most `connections` calls run at once; a call's
    deadline begins when it is its turn. What a busy API server asks to send again later is, for as
    long as the deadline; what it fails to answer is sent three times.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        connections: int,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._configuration = configuration
        self._authorization: str | None = None
        self._authorization_due = 0.0
        self._timeout_seconds = timeout_seconds
        self._slots = asyncio.Semaphore(connections)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=tls_context(configuration), limit=0),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        )

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        return await self._call("GET", kind.path(namespace, name))

    async def version(self, kind: Kind, namespace: str, name: str) -> str | None:
        """The object's resourceVersion, None if it is absent, as the API server's cache knows it.

        Far cheaper than `get`: the content is neither read from etcd nor sent.
        """
        path, accept = kind.path(namespace, name), _METADATA.format("")
        try:
            found = await self._call("GET", path, query={"resourceVersion": "0"}, accept=accept)
        except NotFoundError:
            return None
        return str(found["metadata"]["resourceVersion"])

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[Json]:
        """Every object that matches the selectors."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        pages = self._pages(kind, namespace, query, _JSON)
        return [body async for page in pages for body in _items(page)]

    async def list_metadata(
        self, kind: Kind, namespace: str | None, *, labels: str = ""
    ) -> tuple[int, Sequence[Json]]:
        """The version at which the list is true, and the metadata of every object that matches."""
        query = {"labelSelector": labels, "limit": str(_PAGE)}
        accept = _METADATA.format("List")
        pages = [page async for page in self._pages(kind, namespace, query, accept)]
        version = min(int(page["metadata"]["resourceVersion"]) for page in pages)
        return version, [body for page in pages for body in _items(page)]

    async def pages(
        self, kind: Kind, namespace: str | None, *, labels: str = ""
    ) -> AsyncIterator[Sequence[Json]]:
        """Every object that matches the selector, page by page, to save memory."""
        query = {"labelSelector": labels, "limit": str(_SMALL_PAGE)}
        async for page in self._pages(kind, namespace, query, _JSON):
            yield _items(page)

    async def _pages(
        self, kind: Kind, namespace: str | None, query: dict[str, str], accept: str
    ) -> AsyncIterator[Json]:
        while True:
            page = await self._call("GET", kind.path(namespace), query=query, accept=accept)
            yield page
            if not (rest := page["metadata"].get("continue")):
                return
            query["continue"] = rest

    async def apply(self, kind: Kind, body: Json, *, manager: str = FIELD_MANAGER) -> Json:
        """Server-side apply of `body`; takes ownership of conflicting fields."""
        metadata = body["metadata"]
        return await self._call(
            "PATCH",
            kind.path(metadata["namespace"], metadata["name"]),
            query={"fieldManager": manager, "force": "true"},
            body=body,
            content_type=_APPLY,
        )

    async def apply_new(self, kind: Kind, body: Json) -> Json:
        """Server-side apply of a new object; ConflictError if it exists."""
        # The version is only compared if the object exists.
        metadata = {**body["metadata"], "resourceVersion": _NO_VERSION}
        return await self.apply(kind, {**body, "metadata": metadata})

    async def create(self, kind: Kind, body: Json) -> Json:
        path = kind.path(body["metadata"]["namespace"])
        return await self._call("POST", path, query=_MANAGER, body=body)

    async def replace(self, kind: Kind, body: Json) -> Json:
        """Replaces the version that `body`'s resourceVersion names."""
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
        """Deletes the object of that uid and its dependents; does nothing if it is gone."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._call("DELETE", kind.path(namespace, name), body=body)
        except NotFoundError:
            return

    async def served(self, api_version: str) -> frozenset[str]:
        """The plurals that the API server serves of a version; empty if it serves none."""
        root = "/api" if "/" not in api_version else "/apis"
        try:
            content = await self._call("GET", f"{root}/{api_version}")
        except NotFoundError:
            return frozenset()
        return frozenset(resource["name"] for resource in content["resources"])

    async def close(self) -> None:
        """Closes the connections; calls in progress fail."""
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
        if token := self._bearer():
            headers["Authorization"] = token
        data = None if body is None else _encoded(body)
        until: float | None = None
        failures = 0
        while True:
            try:
                async with (
                    self._slots,
                    self._session.request(
                        verb, URL(url, encoded=True), data=data, headers=headers
                    ) as response,
                ):
                    content = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                reason = str(error) or type(error).__name__
                raise ApiBusyError(f"the Kubernetes API cannot be reached: {reason}") from error
            if response.status < 300:
                return _object(content)
            refused = api_error(response.status, content, response.headers)
            pause = None
            if response.status == _TOO_MANY:
                pause = _pause_seconds(refused)
            elif isinstance(refused, ApiBusyError) and verb in _IDEMPOTENT:
                failures += 1
                pause = _RETRY_SECONDS * random.uniform(1.0, 3.0) if failures < _TRIES else None
            now = time.monotonic()
            until = now + self._timeout_seconds if until is None else until
            if pause is None or now + pause > until:
                raise refused
            await asyncio.sleep(pause)

    def _bearer(self) -> str | None:
        if time.monotonic() >= self._authorization_due:
            self._authorization = bearer(self._configuration)
            self._authorization_due = time.monotonic() + _TOKEN_SECONDS
        return self._authorization


def _pause_seconds(error: AuroraError) -> float | None:
    """How long an API server that is too busy asks to wait, with jitter; None if it does not."""
    asked = error.retry_after_seconds if isinstance(error, ApiBusyError) else None
    return None if asked is None else max(0.1, asked) * random.uniform(1.0, 1.5)


def _encoded(body: Json) -> bytes:
    """JSON that is YAML too, as which the API server parses what is applied.

    YAML knows no surrogate pairs, so what is above U+FFFF is written as it is; the rest is escaped,
    since YAML takes some of it for line breaks and refuses some.
    """
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False)
    return _TO_ESCAPE.sub(_escaped, text).encode()


def _escaped(character: re.Match[str]) -> str:
    code = ord(character[0])
    # Half a pair is no character; JSON parsers put U+FFFD in its place.
    return f"\\u{0xFFFD if 0xD800 <= code <= 0xDFFF else code:04x}"


def _items(page: Json) -> list[Json]:
    # An empty list of metadata is null.
    return page["items"] or []


def _object(content: bytes) -> Json:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ApiBusyError("the Kubernetes API did not answer with JSON") from error
    if not isinstance(found, dict):
        raise ApiBusyError("the Kubernetes API did not answer with a JSON object")
    return found


_MANAGER = {"fieldManager": FIELD_MANAGER}
