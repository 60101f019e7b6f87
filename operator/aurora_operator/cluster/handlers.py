"""Kopf's watches: each event is handed on, and nothing is written by Kopf itself."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import kopf
from kubernetes.client import Configuration

from aurora_operator.adapters.kubernetes import Json, Kind, bearer
from aurora_operator.cluster.kinds import DEPLOYMENT, SELECTOR

logger = logging.getLogger(__name__)

# Called in the watching thread with whether the object is gone, and its body.
OnEvent = Callable[[bool, Json], None]

_RESTART_SECONDS = 1.0
_PAGE = 100


class _Backoffs(Iterable[float]):
    """Patience without end: an API server may be away for as long as it wants."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1, 2)
        while True:
            yield 3.0


class _NoDiff(kopf.DiffBaseStorage):
    """Kopf's memory of what an object was, which nobody asks for and each event would pay for."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class Watches:
    """Watches the kinds in a thread of its own, with a loop of its own, until stopped.

    Kopf ends every task of its loop when it stops; in a thread those are its own. A failure of one
    watch starts all of them anew, which lists everything again.
    """

    def __init__(
        self,
        configuration: Configuration,
        kinds: Collection[Kind],
        *,
        namespaces: Collection[str],
        on_event: OnEvent,
    ) -> None:
        self._configuration = configuration
        self._kinds = kinds
        self._namespaces = namespaces
        self._on_event = on_event
        self._stop = threading.Event()
        # A daemon: a stream that does not end must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Blocks until the thread, if it was started, ended, or for that long."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        # It says of a thread that signals are ignored, which is as it should be.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        # One line an event.
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)
        while not self._stop.is_set():
            try:
                asyncio.run(self._watch())
            except Exception:
                logger.exception("watches failed; they start anew")
            self._stop.wait(_RESTART_SECONDS)

    async def _watch(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(self._kinds),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=tuple(self._namespaces),
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def notice(event: kopf.RawEvent, **_: Any) -> None:
            body: Any = event["object"]
            self._on_event(event["type"] == "DELETED", body)

        def login(**_: Any) -> kopf.ConnectionInfo:
            return _connection(self._configuration)

        kopf.on.login(registry=registry, backoff=_RESTART_SECONDS)(login)
        for kind in self._kinds:
            group, _, version = kind.api_version.rpartition("/")
            kopf.on.event(group, version, kind.plural, id="notice", registry=registry)(notice)
        return registry


def _settings(kinds: Collection[Kind]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = _NoDiff()
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.chunk_size = _PAGE
    # An object's task ends with its last event: thousands are listed at once.
    settings.queueing.idle_timeout = 0.05
    for kind in kinds:
        if kind is not DEPLOYMENT:
            group, _, version = kind.api_version.rpartition("/")
            settings.watching.label_selectors[group, version, kind.plural] = SELECTOR
    return settings


def _connection(configuration: Configuration) -> kopf.ConnectionInfo:
    scheme, _, token = (bearer(configuration) or "").rpartition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
    )
