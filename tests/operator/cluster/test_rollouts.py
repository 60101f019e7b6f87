"""Reconciles of a rollout against an API server with one deployment."""

import copy
import json

import pytest

from aurora_common.errors import ConflictError
from aurora_operator.cluster.child_store import ChildStore
from aurora_operator.cluster.directory import Directory
from aurora_operator.cluster.event_recorder import EventRecorder
from aurora_operator.cluster.kinds import Key
from aurora_operator.cluster.metrics import Metrics
from aurora_operator.cluster.rollouts import RolloutReconciler
from aurora_operator.cluster.status_store import ApiStatusStore, status_of
from aurora_operator.domain.status.deployment import Draft, Status
from aurora_operator.domain.status.status_json import status_to_json

KEY = Key("default", "chat")
STABLE = Draft("draft-7", "sha256:" + "7" * 64, "file:///claims/models/chat/draft-7")


def _body() -> dict:
    return {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {
            "namespace": KEY.namespace,
            "name": KEY.name,
            "uid": "u-1",
            "resourceVersion": "1",
            "generation": 1,
        },
        "spec": {
            "target": {"uri": "pvc://models/target"},
            "modelStore": {"pvc": {"claimName": "models"}},
            "buffer": {"embedded": {}},
            "security": {"tls": {"mode": "Disabled"}},
        },
    }


class _Api:
    """One deployment, which can only be written over the version that was read."""

    def __init__(self) -> None:
        self.body = _body()

    async def get(self, kind, namespace, name):
        return copy.deepcopy(self.body)

    async def patch_status(self, kind, namespace, name, patch, *, manager):
        if patch["metadata"]["resourceVersion"] != self.body["metadata"]["resourceVersion"]:
            raise ConflictError("the object has been modified")
        return self.write(_merged(self.body.get("status", {}), patch["status"]))

    def write(self, status):
        metadata = self.body["metadata"]
        version = str(int(metadata["resourceVersion"]) + 1)
        metadata = {**metadata, "resourceVersion": version}
        self.body = {**self.body, "metadata": metadata, "status": status}
        return copy.deepcopy(self.body)


def _merged(known, patch):
    merged = dict(known)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = _merged(merged[name], value)
        else:
            merged[name] = value
    return merged


class _NoWorkloads:
    async def __call__(self, key, deployment, pods):
        return (), None

    def forget(self, key):
        """There is nothing to forget."""


def _reconciler(api, directory):
    metrics = Metrics()
    return RolloutReconciler(
        api,
        directory,
        ChildStore(),
        workloads=_NoWorkloads(),
        recorder=EventRecorder(api, metrics, "me"),
        metrics=metrics,
        enqueue=lambda key: None,
    )


async def _settled(reconciler, reconciles=5):
    for _ in range(reconciles):
        if await reconciler.reconcile(KEY) is None:
            return


async def test_another_writers_status_is_adopted_and_not_overwritten():
    api, directory = _Api(), Directory()
    directory.remember(api.body)
    directory.get(KEY).problems = ()
    reconciler = _reconciler(api, directory)
    await _settled(reconciler)
    theirs = {**api.body["status"], **json.loads(status_to_json(Status(stable=STABLE)))}
    # The watch reports it like a write of ours.
    directory.remember(api.write(theirs))
    # A change that has the status written: a stale one would be lost.
    metadata = {**api.body["metadata"], "generation": 2, "resourceVersion": "90"}
    api.body = {**api.body, "metadata": metadata}
    directory.remember(api.body)
    await _settled(reconciler)
    found = status_of(api.body)
    assert (found.observed_generation, found.stable) == (2, STABLE)
    await reconciler.close()


async def test_a_status_of_a_later_operator_is_mended_around_its_stable_draft():
    api, directory = _Api(), Directory()
    later = {**json.loads(status_to_json(Status(stable=STABLE))), "paused": "OfALaterVersion"}
    directory.remember(api.write(later))
    directory.get(KEY).problems = ()
    reconciler = _reconciler(api, directory)
    await _settled(reconciler)
    assert (api.body["status"]["paused"], status_of(api.body).stable) == (False, STABLE)
    await reconciler.close()


async def test_a_status_is_never_written_over_a_newer_body():
    api, directory = _Api(), Directory()
    directory.remember(api.body)
    store = ApiStatusStore(
        api, directory, KEY, "u-1", version=1, metrics=Metrics(), on_written=lambda *_: None
    )
    directory.remember(api.write(json.loads(status_to_json(Status(stable=STABLE)))))
    with pytest.raises(ConflictError):
        await store.save(Status(observed_generation=1))
    assert status_of(api.body).stable == STABLE


async def test_a_conflicting_writer_leads_to_a_reload_and_a_backoff():
    api, directory = _Api(), Directory()
    directory.remember(api.body)
    directory.get(KEY).problems = ()
    newest = api.write({})
    reconciler = _reconciler(api, directory)
    # The queue's backoff grows with each conflict.
    with pytest.raises(ConflictError):
        await reconciler.reconcile(KEY)
    assert directory.get(KEY).known.version == int(newest["metadata"]["resourceVersion"])
    await _settled(reconciler)
    assert status_of(api.body).observed_generation == 1
    await reconciler.close()
