"""Forms groups of the ranks that are there, from the trainer's side.

A rank announces itself in the store and waits to be called. The trainer then calls: it ends the
group that there is, counts who answers, and forms another. Nobody who is gone or hangs answers, so
a group is formed within seconds, and training does not wait for it: until then the trainer computes
alone. torchrun's agents would restart the trainer with each rank that ends, its gRPC services and
its judge included, and give rank 0 to any of them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed

from aurora_common.lasting import LastingFailures
from aurora_trainer.ranks.call import ARRIVALS, ROUND, Call
from aurora_trainer.ranks.group import Group
from aurora_trainer.ranks.store import first_line

logger = logging.getLogger(__name__)

# How long a call waits for answers, unless all ranks have answered.
_ANSWER_SECONDS = 2.0
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.5
# A rank that fails again and again must not keep the others from training.
_FIRST_BACKOFF_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 300.0


class Coordinator:
    """Keeps a group formed on a thread of its own, and lends it to the training thread."""

    def __init__(self, store: distributed.TCPStore, *, ranks: int, timeout_seconds: float) -> None:
        """`ranks`: how many there shall be, the trainer included."""
        self._store = store
        self._ranks = ranks
        self._timeout_seconds = timeout_seconds
        # Held while the group is in use, or changes.
        self._lock = threading.Lock()
        self._group: Group | None = None
        self._failures = LastingFailures()
        self._reason = "no other has come yet"
        self._number = 0
        # The last call that a group was formed after.
        self._formed = 0
        self._seen_arrivals = 0
        self._not_before = 0.0
        self._backoff_seconds = _FIRST_BACKOFF_SECONDS
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ranks", daemon=True)
        store.set(ROUND, "0")

    @property
    def problem(self) -> str:
        """What has kept ranks from training for a while; empty: nothing. Thread-safe."""
        return self._failures.lasting().get("ranks", "")

    def start(self) -> None:
        """Begins to form groups."""
        self._thread.start()

    def ready(self) -> bool:
        """Whether all ranks are there. Thread-safe."""
        group = self._group
        return group is not None and group.size == self._ranks

    def close(self) -> None:
        """Lends no group any more; whoever waits for a rank gives up. Thread-safe."""
        self._closed = True
        group = self._group
        if group is not None:
            group.abandon()

    def end(self) -> None:
        """Ends the group as well; blocks while it is lent or formed."""
        self._closed = True
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._end()

    @contextmanager
    def group(self) -> Iterator[Group | None]:
        """The group for one step, None if there is none; after an error it is not used again."""
        with self._lock:
            group = None if self._closed else self._group
            try:
                yield group
            except Exception as error:
                # Nothing of it blocks a process that is stopping.
                if not self._closed:
                    self._end()
                    self._failed(error)
                raise
            if group is not None:
                self._backoff_seconds = _FIRST_BACKOFF_SECONDS

    def _run(self) -> None:
        try:
            while not self._closed:
                self._look()
                time.sleep(_LOOK_SECONDS)
        except Exception:
            logger.exception("ranks are no longer called; training goes on alone")
            self._failures.failed("ranks", "ranks are no longer called: restart the trainer")

    def _look(self) -> None:
        arrivals = self._store.add(ARRIVALS, 0)
        if arrivals != self._seen_arrivals and time.monotonic() >= self._not_before:
            self._seen_arrivals = arrivals
            self._call()
        if self.ready():
            self._failures.succeeded("ranks")
        else:
            group = self._group
            size = 1 if group is None else group.size
            reason = self._told() or self._reason
            self._failures.failed("ranks", f"{size} of {self._ranks} ranks train: {reason}")

    def _call(self) -> None:
        with self._lock:
            if self._group is not None:
                self._end()
        self._number += 1
        call = Call(self._number)
        self._store.set(ROUND, str(self._number))
        self._store.set(call.opened, "")
        size = 1 + self._counted(call)
        self._store.set(call.size, str(size))
        if size == 1:
            return
        self._formed = self._number
        try:
            group = Group(
                distributed.PrefixStore(call.group, self._store),
                rank=0,
                size=size,
                timeout_seconds=self._timeout_seconds,
            )
        except RuntimeError as error:
            self._failed(error)
            return
        with self._lock:
            self._group = group
        self._reason = "the others have not come"
        logger.info("ranks train together", extra={"fields": {"ranks": size}})

    def _counted(self, call: Call) -> int:
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            answers: int = self._store.add(call.answers, 0)
            if answers >= self._ranks - 1 or time.monotonic() >= deadline:
                return min(answers, self._ranks - 1)
            time.sleep(_POLL_SECONDS)

    def _end(self) -> None:
        group, self._group = self._group, None
        if group is not None:
            group.dismiss()
            group.close()

    def _failed(self, error: Exception) -> None:
        self._not_before = time.monotonic() + self._backoff_seconds
        self._backoff_seconds = min(2 * self._backoff_seconds, _LONGEST_BACKOFF_SECONDS)
        self._reason = first_line(error)
        logger.warning("training goes on alone", extra={"fields": {"reason": self._reason}})

    def _told(self) -> str:
        """Why a rank left the last group, if it has said so by now."""
        key = Call(self._formed).failure
        return self._store.get(key).decode() if self._store.check([key]) else ""
