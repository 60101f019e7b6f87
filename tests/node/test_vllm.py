"""A stock vLLM in pods: it serves, its draft learns, and a pod ends without losing a request."""

from __future__ import annotations

import base64
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from harness import place
from harness.cluster import Cluster
from harness.host_folder import claimed, python_folders, volume, writable_folder
from harness.installation import CHART, chart_values, vllm_deployment
from harness.model import Models

SYSTEM, NAMESPACE, NAME, TOKEN = "aurora-vllm", "vllm", "chat", "a-client's-token"
RESOURCE = f"auroradeployment/{NAME}"
READY_SECONDS, PROMOTION_SECONDS = 400, 400
VARIABLE = "AURORA_VLLM"

pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ, reason="vLLM has an environment of its own: make e2e-vllm"
)


@pytest.fixture(scope="module")
def namespaces(cluster: Cluster) -> dict[str, Path]:
    """Both, under Pod Security `restricted`, with claims in place of the images' content."""
    folders = {**python_folders(), "vllm": Path(os.environ[VARIABLE]).resolve()}
    for namespace in (SYSTEM, NAMESPACE):
        metadata = {
            "name": namespace,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            "annotations": {"aurora.dev/allowed-claims": ", ".join(folders)},
        }
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for claim, folder in folders.items():
            cluster.apply(*claimed(namespace, claim, folder))
    return folders


@pytest.fixture(scope="module")
def url(cluster: Cluster, namespaces: dict[str, Path], models: Models) -> Iterator[str]:
    values = place.FOLDER / "vllm-values.yaml"
    values.write_text(json.dumps(chart_values(python_folders(), [NAMESPACE])))
    cluster.helm(
        *("install", "aurora-vllm", CHART, "--namespace", SYSTEM, "--values", values),
        *("--wait", "--timeout", "90s"),
    )
    cluster.apply(
        *claimed(NAMESPACE, "models", models.folder),
        volume(NAMESPACE, f"redis-{NAME}-buffer-0", writable_folder("vllm-redis")),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{NAME}-tokens", "namespace": NAMESPACE},
            "data": {"client": base64.b64encode(TOKEN.encode()).decode()},
        },
        vllm_deployment(NAMESPACE, models, python_folders(), vllm=namespaces["vllm"]),
    )
    cluster.await_that(lambda: is_ready(cluster), "the deployment is ready", READY_SECONDS)
    address = cluster.get("-n", NAMESPACE, "service", f"{NAME}-inference")["spec"]["clusterIP"]
    yield f"http://{address}:8000"
    cluster.kubectl("-n", NAMESPACE, "delete", RESOURCE, "--wait=false")


def status_of(cluster: Cluster) -> dict[str, Any]:
    return cluster.get("-n", NAMESPACE, RESOURCE).get("status", {})


def is_ready(cluster: Cluster) -> bool:
    conditions = status_of(cluster).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    labels = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component=inference"
    return cluster.get("-n", NAMESPACE, "pods", "-l", labels)["items"]


def complete(url: str, prompt: str, tokens: int, token: str = TOKEN) -> dict[str, Any]:
    body = {
        "model": NAME,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0.0,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)["choices"][0]


def test_only_a_client_with_a_token_is_served(url):
    with pytest.raises(urllib.error.HTTPError) as refused:
        complete(url, "select", 4, token="another")
    with refused.value:
        assert refused.value.code == 401
    assert complete(url, "select", 4)["finish_reason"] == "length"


def test_a_draft_that_learned_is_promoted_and_no_pod_is_replaced(cluster, url, models):
    stop, failures = threading.Event(), []
    prompts = cycle(models.prompts("sql", 100, seed=1))
    before = [(pod["metadata"]["name"], restarts(pod)) for pod in pods(cluster)]

    def send() -> None:
        while not stop.is_set():
            try:
                complete(url, next(prompts), 32)
            except OSError as error:
                failures.append(repr(error))
                stop.wait(1)

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(send) for _ in range(3)]
        try:
            cluster.await_that(
                lambda: any(
                    past["outcome"] == "Promoted" for past in status_of(cluster).get("history", ())
                ),
                "a draft is promoted",
                PROMOTION_SECONDS,
            )
        finally:
            stop.set()
    for client in clients:
        client.result()
    assert failures == []
    assert [(pod["metadata"]["name"], restarts(pod)) for pod in pods(cluster)] == before


def restarts(pod: dict[str, Any]) -> int:
    kinds = ("containerStatuses", "initContainerStatuses")
    return sum(one["restartCount"] for kind in kinds for one in pod["status"].get(kind, ()))


def test_a_pod_that_is_deleted_finishes_what_it_began(cluster, url):
    with ThreadPoolExecutor(8) as pool:
        begun = [pool.submit(complete, url, f"select {n} from b", 180) for n in range(8)]
        (pod,) = pods(cluster)
        name = pod["metadata"]["name"]
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", name, "--wait=false")
        answers = [each.result() for each in begun]
    assert [answer["finish_reason"] for answer in answers] == ["length"] * 8
    cluster.await_that(
        lambda: (
            is_ready(cluster) and name not in {pod["metadata"]["name"] for pod in pods(cluster)}
        ),
        "its successor serves",
        READY_SECONDS,
    )
    assert complete(url, "select", 4)["finish_reason"] == "length"
