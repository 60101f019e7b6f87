"""Compares what is known with what the API server has, beside the watches of `watch.py`.

An event that a watch lost is never sent again, and a watch that starts over lists what exists
without naming what was deleted meanwhile. Kopf also has no signal that a kind has been listed, and
no object may be created before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence

from aurora_common.errors import AuroraError, NotFoundError
from aurora_operator.adapters.api_error import KindNotServedError
from aurora_operator.adapters.kubernetes import Json, Kind, KubernetesApi
from aurora_operator.cluster.child_store import ChildStore, Known
from aurora_operator.cluster.directory import Directory
from aurora_operator.cluster.kinds import DEPLOYMENT, SELECTOR, Key, Reference, owner, reference

logger = logging.getLogger(__name__)

_RELIST_SECONDS = 300.0
# A watch that starts over lists object by object.
_LISTED_SECONDS = 2.0


class Reflector:
    """Reports to `on_event` (whether it was deleted, its body) what the stores do not know yet."""

    def __init__(
        self,
        api: KubernetesApi,
        *,
        namespaces: Collection[str],
        directory: Directory,
        children: ChildStore,
        on_event: Callable[[bool, Json], None],
    ) -> None:
        self._api = api
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._directory = directory
        self._children = children
        self._on_event = on_event
        # The kinds to relist soon.
        self._asked: set[str] = set()
        self._wake = asyncio.Event()

    def ask(self, kind: str) -> None:
        """Has the kind of that name relisted within seconds."""
        self._asked.add(kind)
        self._wake.set()

    async def prime(self, kind: Kind) -> None:
        """Lists every object of the kind with its content."""
        for namespace in self._namespaces:
            async for page in self._api.pages(kind, namespace, labels=_selector(kind)):
                for body in page:
                    named = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
                    self._on_event(False, named)

    async def run(self, kinds: Sequence[Kind]) -> None:
        """Relists one kind after the other, all within five minutes, until cancelled."""
        while True:
            for kind in kinds:
                await self._try_relist(kind)
                await asyncio.sleep(_RELIST_SECONDS / len(kinds))

    async def run_asked(self, kinds: Sequence[Kind]) -> None:
        """Relists the kinds that were asked for, until cancelled."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_LISTED_SECONDS)
            self._wake.clear()
            asked, self._asked = self._asked, set()
            for kind in kinds:
                if kind.kind in asked:
                    await self._try_relist(kind)

    async def _try_relist(self, kind: Kind) -> None:
        try:
            await self._relist(kind)
        except AuroraError as error:
            fields = {"kind": kind.kind, "reason": str(error)}
            logger.warning("relist failed", extra={"fields": fields})

    async def poll(self, kind: Kind, seconds: float) -> None:
        """Relists a kind that is not watched, while an object of it is known, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                if self._children.has(kind.kind):
                    await self._relist(kind)
            except KindNotServedError:
                # Its definition is gone, and all objects with it.
                for entry in self._known(kind).values():
                    self._on_event(True, entry.body)
            except AuroraError as error:
                fields = {"kind": kind.kind, "reason": str(error)}
                logger.warning("relist failed", extra={"fields": fields})

    async def _relist(self, kind: Kind) -> None:
        before = self._known(kind)
        listed: dict[tuple[Key, Reference], int] = {}
        versions = []
        for namespace in self._namespaces:
            at, found = await self._api.list_metadata(kind, namespace, labels=_selector(kind))
            versions.append(at)
            for body in found:
                named = {**body, "kind": kind.kind}
                if (key := _key(kind, named)) is not None:
                    version = int(body["metadata"]["resourceVersion"])
                    listed[key, reference(named)] = version
        oldest = min(versions)
        for (key, place), entry in before.items():
            # What the list does not name may be newer than the list, or have changed since.
            missing = (key, place) not in listed and entry.version <= oldest
            if missing and self._known_one(kind, key, place) == entry:
                self._on_event(True, entry.body)
        for (key, place), version in listed.items():
            known = self._known_one(kind, key, place)
            if known is None or known.version < version:
                await self._read(kind, key, place)

    async def _read(self, kind: Kind, key: Key, place: Reference) -> None:
        try:
            body = await self._api.get(kind, key.namespace, place.name)
        except NotFoundError:
            # Deleted since; the next relist notices.
            return
        self._on_event(False, body)

    def _known(self, kind: Kind) -> dict[tuple[Key, Reference], Known]:
        if kind is DEPLOYMENT:
            return {
                (key, Reference(DEPLOYMENT.kind, key.name)): tracked.known
                for key in self._directory
                if (tracked := self._directory.get(key)) is not None
            }
        return self._children.versions(kind.kind)

    def _known_one(self, kind: Kind, key: Key, place: Reference) -> Known | None:
        if kind is DEPLOYMENT:
            tracked = self._directory.get(key)
            return None if tracked is None else tracked.known
        return self._children.known(key, place)


def _selector(kind: Kind) -> str:
    return "" if kind is DEPLOYMENT else SELECTOR


def _key(kind: Kind, body: Json) -> Key | None:
    metadata = body["metadata"]
    return Key(metadata["namespace"], metadata["name"]) if kind is DEPLOYMENT else owner(body)
