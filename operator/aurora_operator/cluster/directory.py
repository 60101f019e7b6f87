"""The deployments that exist, as they were seen last, and what was found of their objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aurora_common.tls import Certificates
from aurora_operator.adapters.kubernetes import Json
from aurora_operator.cluster.child_store import Known, News, known
from aurora_operator.cluster.kinds import Key
from aurora_operator.domain.plan.observation import Problem


@dataclass(slots=True)
class Tracked:
    """One deployment; `uid` tells it from another that had its name before."""

    key: Key
    known: Known
    # The generation for which every object was found as it should be; None: look at all of them.
    settled_generation: int | None = None
    # What is wrong with its objects; None before they were looked at.
    problems: tuple[Problem, ...] | None = None
    # Counts what was heard of its objects: a look that something came into settles nothing.
    changes: int = 0
    # Who the operator is to this deployment's pods; None before it is known, or without TLS.
    identity: Certificates | None = None
    # The generation whose certificates were found as they should be, and when, monotonic, they
    # are looked at again.
    certified_generation: int | None = None
    certificates_due: float = 0.0

    def disturb(self) -> None:
        """Wants every object looked at again."""
        self.changes += 1
        self.settled_generation = None

    @property
    def uid(self) -> str:
        return self.known.uid

    @property
    def body(self) -> Json:
        return self.known.body


class Directory:
    """By key; of two bodies of one deployment the newer one counts."""

    def __init__(self) -> None:
        self._tracked: dict[Key, Tracked] = {}

    def __len__(self) -> int:
        return len(self._tracked)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._tracked))

    def get(self, key: Key) -> Tracked | None:
        return self._tracked.get(key)

    def remember(self, body: Json) -> News:
        """Takes a deployment's body over, and what of it was news."""
        metadata = body["metadata"]
        key, entry = Key(metadata["namespace"], metadata["name"]), known(body)
        tracked = self._tracked.get(key)
        if tracked is None or tracked.uid != entry.uid:
            if tracked is not None and tracked.known.version > entry.version:
                return News.NONE
            self._tracked[key] = Tracked(key, entry)
            return News.ESSENCE
        before = tracked.known
        if before.version >= entry.version:
            return News.NONE
        tracked.known = entry
        return News.STATUS if before.essence == entry.essence else News.ESSENCE

    def forget(self, key: Key, uid: str) -> bool:
        """Drops the deployment of that uid, and whether it was known."""
        tracked = self._tracked.get(key)
        if tracked is None or tracked.uid != uid:
            return False
        del self._tracked[key]
        return True
