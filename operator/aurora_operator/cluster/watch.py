"""Kopf's watches: events go to a callback, and Kopf itself writes nothing.

Kopf lists, watches, reconnects, starts over after "410 Gone", and logs in again. The rest of it is
not used, because:

- its indexes drop an object on its DELETED event alone, so one that is deleted while a watch is
  interrupted stays for ever; and only their handlers can write to them, so they lag behind the
  answers to our own writes,
- its timers and daemons put a finalizer on every AuroraDeployment, and run a task for each,
- its change handlers keep their state in annotations, and its Events can only be posted from within
  a handler.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection
from typing import Any, cast

import kopf
from kubernetes.client import Configuration

from aurora_operator.adapters.kubeconfig import bearer
from aurora_operator.adapters.kubernetes import Json, Kind
from aurora_operator.cluster.kinds import DEPLOYMENT, SELECTOR

logger = logging.getLogger(__name__)

# Whether the object was deleted, and its body.
OnEvent = Callable[[bool, Json], None]
# The name of a kind.
OnList = Callable[[str], None]

_RESTART_SECONDS = 1.0
_PAGE = 100
# An hour of retries: longer outages end in a restart of all watches, which lists everything again.
_BACKOFFS_SECONDS = (0.2, 0.5, 1.0, 2.0, *(3.0,) * 1200)


class _NoDiff(kopf.DiffBaseStorage):
    """Saves a copy of each object per event, which only Kopf's change handlers would need."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class Watches:
    """Watches the kinds until stopped; callbacks are called in the event loop that made this.

    `on_list` is called, for each object, if a kind was listed: as deletions before it bring no
    event.

    Kopf runs in a thread of its own: it takes over the main thread's signals, and cancels every
    task of its loop when it ends. If one watch fails, all are restarted.
    """

    def __init__(
        self,
        configuration: Configuration,
        kinds: Collection[Kind],
        *,
        namespaces: Collection[str],
        on_event: OnEvent,
        on_list: OnList,
    ) -> None:
        self._configuration = configuration
        self._kinds = kinds
        self._namespaces = namespaces
        self._on_event = on_event
        self._on_list = on_list
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        # A daemon: a stream that does not end must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Blocks until the thread, if started, has ended, or until the timeout."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        # Kopf warns that a thread gets no signals, and logs a line per event.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        logging.getLogger("kopf.objects").setLevel(logging.WARNING)
        while not self._stop.is_set():
            try:
                asyncio.run(self._watch())
            except Exception:
                logger.exception("watches failed; restarting them")
            self._stop.wait(_RESTART_SECONDS)

    async def _watch(self) -> None:
        await kopf.operator(
            registry=self._registry(),
            settings=_settings(self._kinds),
            # For Kopf's peering alone, which is off. Kopf would ask for the user's name, which an
            # image need not have.
            identity=cast(Any, "aurora"),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=tuple(self._namespaces),
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        async def forward(event: kopf.RawEvent, **_: Any) -> None:
            body: Any = event["object"]
            self._loop.call_soon_threadsafe(self._deliver, event["type"], body)

        def login(**_: Any) -> kopf.ConnectionInfo:
            return _connection(self._configuration)

        kopf.on.login(registry=registry, backoff=_RESTART_SECONDS)(login)
        for kind in self._kinds:
            group, _, version = kind.api_version.rpartition("/")
            kopf.on.event(group, version, kind.plural, id="forward", registry=registry)(forward)
        return registry

    def _deliver(self, event: str | None, body: Json) -> None:
        self._on_event(event == "DELETED", body)
        if event is None:
            self._on_list(body["kind"])


def _settings(kinds: Collection[Kind]) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.persistence.diffbase_storage = _NoDiff()
    settings.networking.request_timeout = 30.0
    settings.networking.connect_timeout = 5.0
    settings.networking.error_backoffs = _BACKOFFS_SECONDS
    settings.watching.chunk_size = _PAGE
    # Kopf keeps a task per object for so long after its last event; a list brings thousands.
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
