"""The Kubernetes API for coroutines: JSON requests, and mirrors of all objects of a kind."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
_CALL_SECONDS = 30.0
_RETRY_SECONDS = 0.2
# The longest line of a watch, which is one event: a large Secret fits.
LINE_BYTES = 16 << 20


class ApiError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class AsyncApi:
    """One user of one cluster, from a kubeconfig; made and used in one event loop."""

    def __init__(self, kubeconfig: Path) -> None:
        content = json.loads(kubeconfig.read_text())
        cluster, user = content["clusters"][0]["cluster"], content["users"][0]["user"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        context.load_cert_chain(user["client-certificate"], user["client-key"])
        self._session = aiohttp.ClientSession(
            cluster["server"],
            connector=aiohttp.TCPConnector(ssl=context, limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CALL_SECONDS),
            read_bufsize=LINE_BYTES,
        )

    async def request(
        self, verb: str, path: str, body: Json | None = None, *, content_type: str = ""
    ) -> Json:
        """One request; ApiError if it is refused."""
        headers = {"Content-Type": content_type or "application/json"}
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        async with self._session.request(
            verb, path, json=body, headers=headers, timeout=timeout
        ) as response:
            content: Json = await response.json()
            if response.status >= 300:
                raise ApiError(response.status, content.get("message", ""))
            return content

    async def watch(self, path: str, version: str, on_event: Callable[[str, Json], None]) -> None:
        """Passes on every event after a version, until the stream ends."""
        query = f"{'&' if '?' in path else '?'}watch=true&resourceVersion={version}"
        async with self._session.get(path + query) as response:
            if response.status >= 300:
                raise ApiError(response.status, await response.text())
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise ApiError(event["object"].get("code", 0), "the watch failed")
                on_event(event["type"], event["object"])

    async def close(self) -> None:
        await self._session.close()


class Mirror:
    """All objects of the kind at `path`, by namespace and name, kept up to date by `run`.

    `on_change` receives each new or changed object, and the last state of each deleted one, with
    `gone`.
    """

    def __init__(self, api: AsyncApi, path: str, on_change: Callable[[Json, bool], None]) -> None:
        self._api = api
        self._path = path
        self._on_change = on_change
        self._objects: dict[tuple[str, str], Json] = {}

    def get(self, namespace: str, name: str) -> Json | None:
        return self._objects.get((namespace, name))

    async def run(self) -> None:
        """Lists and watches until cancelled, whatever the API server does."""
        while True:
            try:
                version = await self._list()
                await self._api.watch(self._path, version, self._take)
            except (ApiError, aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(_RETRY_SECONDS)

    async def _list(self) -> str:
        found = await self._api.request("GET", self._path)
        present = {_place(one): one for one in found["items"]}
        for place in [place for place in self._objects if place not in present]:
            self._take("DELETED", self._objects[place])
        for one in present.values():
            self._take("MODIFIED", one)
        return str(found["metadata"]["resourceVersion"])

    def _take(self, kind: str, body: Json) -> None:
        gone = kind == "DELETED"
        if gone:
            self._objects.pop(_place(body), None)
        else:
            self._objects[_place(body)] = body
        self._on_change(body, gone)


def _place(body: Json) -> tuple[str, str]:
    metadata = body["metadata"]
    return metadata.get("namespace", ""), metadata["name"]
