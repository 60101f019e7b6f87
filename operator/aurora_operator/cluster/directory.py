"""The newest known body of every AuroraDeployment, and what was found of its objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from aurora_common.lasting import LastingFailures
from aurora_common.tls import Certificates
from aurora_operator.adapters.kubernetes import Json
from aurora_operator.cluster.child_store import Known, News, known
from aurora_operator.cluster.kinds import ADOPT, Key, is_left_by, is_owned_by
from aurora_operator.domain.objects.attached import Followed
from aurora_operator.domain.plan.observation import Problem


@dataclass(slots=True)
class Tracked:
    """One deployment; its `uid` distinguishes it from an earlier one of the same name."""

    key: Key
    known: Known
    # The generation whose objects were all found correct; None: check all of them.
    settled_generation: int | None = None
    # What is wrong with its objects; None before the first check.
    problems: tuple[Problem, ...] | None = None
    # Of the reconciles of its objects.
    failures: LastingFailures = field(default_factory=LastingFailures)
    # Counts the changes to its objects: a reconcile that one came into settles nothing.
    changes: int = 0
    # The operator's certificate towards this deployment's pods; None if unknown, or without TLS.
    identity: Certificates | None = None
    # The generation whose certificates were found correct, and when (monotonic) to check again.
    certified_generation: int | None = None
    certificates_due: float = 0.0
    # The pods of an attached vLLM.
    engines: Followed = field(default_factory=Followed)
    # Their labels; empty: it is attached to none; None: not looked at yet.
    engine_selector: str | None = None
    # The resourceVersion of each Secret as it was left.
    secrets: Mapping[str, str] = field(default_factory=dict)

    def unsettle(self) -> None:
        """Has every object checked again."""
        self.changes += 1
        self.settled_generation = None

    def owns(self, body: Json) -> bool:
        """Whether the object is this deployment's, or one that it may adopt."""
        if is_owned_by(body, self.uid):
            return True
        annotations = self.body["metadata"].get("annotations", {})
        return annotations.get(ADOPT) == "true" and is_left_by(body, self.key)

    @property
    def uid(self) -> str:
        return self.known.uid

    @property
    def body(self) -> Json:
        return self.known.body


class Directory:
    """Deployments by key; a body older than the known one is ignored."""

    def __init__(self) -> None:
        self._tracked: dict[Key, Tracked] = {}

    def __len__(self) -> int:
        return len(self._tracked)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._tracked))

    def get(self, key: Key) -> Tracked | None:
        return self._tracked.get(key)

    def bodies(self) -> list[Json]:
        """The newest bodies; may be called from any thread."""
        return [tracked.body for tracked in tuple(self._tracked.values())]

    def namespaces(self) -> frozenset[str]:
        return frozenset(key.namespace for key in self._tracked)

    def remember(self, body: Json) -> News:
        """Stores a deployment's body and returns what of it was new."""
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
        """Drops the deployment of that uid; False if it was not known."""
        tracked = self._tracked.get(key)
        if tracked is None or tracked.uid != uid:
            return False
        del self._tracked[key]
        return True
