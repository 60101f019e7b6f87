"""Invariants of a rollout, checked continuously while it runs."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from kubernetes.client.exceptions import ApiException
from support.deployments import Deployments
from support.kubelet import Kubelet
from urllib3.exceptions import HTTPError

_POLL_SECONDS = 0.03


class Watcher:
    """Checks one deployment continuously from `start` to `stop`, which returns the violations;
    `allowed` are the digests that may ever be promoted."""

    def __init__(
        self, deployments: Deployments, kubelet: Kubelet, *, name: str, allowed: set[str]
    ) -> None:
        self._deployments = deployments
        self._kubelet = kubelet
        self._name = name
        self._allowed = allowed
        self._promoting = False
        self._problems: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Call once a pod serves with a stable draft: from then on, one always must."""
        self._thread.start()

    def stop(self) -> list[str]:
        self._stopped.set()
        self._thread.join()
        return self._problems

    def before_promotion(self) -> None:
        """Call right before a pod promotes: the evidence must be stored by then."""
        if not self._promoting:
            self._promoting = True
            rollout = self._deployments.status(self._name).get("rollout", {})
            evidence = rollout.get("evidence", {})
            if float(evidence.get("logE", 0)) < float(evidence.get("threshold", "inf")):
                self._problems.append(f"promoted without the evidence: {rollout}")

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._check_pods()
            with suppress(ApiException, HTTPError):
                self._check_evidence(self._deployments.status(self._name))
            self._stopped.wait(_POLL_SECONDS)

    def _check_pods(self) -> None:
        workers = self._kubelet.workers(self._deployments.namespace, "inference")
        served = [worker.standin.stable for worker in workers if worker.is_ready and worker.standin]
        if not any(served):
            self._note("no ready pod has a stable draft")
        for draft in served:
            if draft is not None and draft.digest not in self._allowed:
                self._note(f"{draft.digest} was promoted")

    def _check_evidence(self, status: dict[str, Any]) -> None:
        rollout = status.get("rollout", {})
        evidence = rollout.get("evidence")
        if evidence is None or rollout["state"] in ("Promoted", "RolledBack", "Inconclusive"):
            return
        listed = sum(cursor["after"] for cursor in evidence.get("cursors", ()))
        if evidence["requests"] != listed:
            self._note(f"{evidence['requests']} requests counted of {listed} listed")

    def _note(self, problem: str) -> None:
        if problem not in self._problems:
            self._problems.append(problem)
