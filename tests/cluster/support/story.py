"""One deployment from its manifest to a promoted draft, with or without disturbance."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from support.deployments import Deployments, wait_until
from support.invariants import Watcher
from support.kubelet import Kubelet
from support.standin import digest_of

NAME = "chat"
_CLAIM = "models"
_FIRST_DIGEST = digest_of(f"pvc://{_CLAIM}/draft-0")
_REPLICAS = 2
# A deployment's objects, except pods, whose names differ each time.
_OBJECTS = (
    *(("v1", plural) for plural in ("serviceaccounts", "services", "secrets")),
    *(("apps/v1", plural) for plural in ("deployments", "statefulsets")),
    ("networking.k8s.io/v1", "networkpolicies"),
    ("policy/v1", "poddisruptionbudgets"),
)
_SERVERS_OWN = ("clusterIP", "clusterIPs")


class Story:
    """`meanwhile` is called repeatedly while the story waits; `situation` describes what it waits
    in. Set `before_promotion` to be called right before a pod promotes."""

    def __init__(
        self,
        deployments: Deployments,
        kubelet: Kubelet,
        *,
        meanwhile: Callable[[], object] = lambda: None,
        situation: Callable[[], str] = str,
        seconds: float = 60.0,
    ) -> None:
        self._deployments, self._kubelet = deployments, kubelet
        self._meanwhile, self._situation, self._seconds = meanwhile, situation, seconds
        self.before_promotion: Callable[[], None] = lambda: None

    def play(self) -> dict[str, Any]:
        """Plays it to its end and returns what must be the same each time.

        AssertionError if an invariant is violated, or the end is not reached.
        """
        initial = {"initialCheckpoint": {"uri": f"pvc://{_CLAIM}/draft-0"}}
        self._deployments.apply(NAME, replicas=_REPLICAS, draft=initial)
        self._await(lambda: self._is_ready() and self._serves(_FIRST_DIGEST))
        digest = self._kubelet.publish(self._deployments.namespace, NAME, acceptance=0.9)
        watcher = Watcher(
            self._deployments, self._kubelet, name=NAME, allowed={_FIRST_DIGEST, digest}
        )
        self.before_promotion = watcher.before_promotion
        watcher.start()
        try:
            self._await(lambda: self._is_over(digest))
        finally:
            problems = watcher.stop()
        assert problems == []
        return self._summary()

    def _await(self, condition: Callable[[], bool]) -> None:
        def reached() -> bool:
            self._meanwhile()
            return condition()

        def why() -> str:
            status = json.dumps(self._deployments.status(NAME), indent=1)
            return f"drafts {self._drafts()}\n{status}\n{self._situation()}"

        wait_until(reached, seconds=self._seconds, why=why)

    def _is_ready(self) -> bool:
        return self._deployments.condition("Ready", NAME).get("status") == "True"

    def _serves(self, digest: str) -> bool:
        return self._drafts() == [(digest, "", "")] * _REPLICAS

    def _drafts(self) -> list[tuple[str, str, str]]:
        """Stable, candidate and rollout of each pod."""
        workers = self._kubelet.workers(self._deployments.namespace, "inference")
        return [
            (
                standin.stable.digest if standin.stable else "",
                standin.candidate.digest if standin.candidate else "",
                standin.rollout_id,
            )
            for worker in workers
            if (standin := worker.standin) is not None
        ]

    def _is_over(self, digest: str) -> bool:
        status = self._deployments.status(NAME)
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        settled = {"Ready": "True", "Progressing": "False", "Degraded": "False"}
        is_settled = settled.items() <= conditions.items()
        state = status.get("rollout", {}).get("state")
        return is_settled and state == "Promoted" and self._serves(digest)

    def _summary(self) -> dict[str, Any]:
        body = self._deployments.get(NAME)
        status = body["status"]
        return {
            "objects": sorted(self._objects(body["metadata"]["uid"])),
            "history": [(each["id"], each["outcome"]) for each in status["history"]],
            "stable": status["stable"]["checkpoint"],
            "replicas": (status["replicas"], status["readyReplicas"], status["updatedReplicas"]),
            "conditions": {each["type"]: each["status"] for each in status["conditions"]},
        }

    def _objects(self, uid: str) -> list[tuple[str, str, str]]:
        """Plural, name and content of each object, all of which must have the owner."""
        found = []
        for version, plural in _OBJECTS:
            for body in self._deployments.objects(version, plural, "app.kubernetes.io/name=aurora"):
                metadata = body["metadata"]
                owners = [owner["uid"] for owner in metadata.get("ownerReferences", ())]
                assert owners == [uid], f"an orphan: {plural} {metadata['name']}"
                found.append((plural, metadata["name"], self._content(body)))
        return found

    def _content(self, body: dict[str, Any]) -> str:
        if "data" in body:
            return json.dumps(sorted(body["data"]))
        spec = {key: it for key, it in body.get("spec", {}).items() if key not in _SERVERS_OWN}
        text = json.dumps(spec, sort_keys=True)
        return text.replace(self._deployments.namespace, "namespace")
