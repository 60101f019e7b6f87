"""A stock vLLM in pods: it serves, its draft learns, and a pod ends without losing a request."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import place
from harness.cluster import Cluster
from harness.host_folder import (
    claimed,
    mounts,
    python_folders,
    volume,
    writable_folder,
)
from harness.installation import (
    CHART,
    attached_deployment,
    chart_values,
    namespaces,
    own_vllm,
    vllm_deployment,
)
from harness.model import Models

SYSTEM, NAMESPACE, NAME, TOKEN = "aurora-vllm", "vllm", "chat", "a-client's-token"
RESOURCE = f"auroradeployment/{NAME}"
READY_SECONDS, PROMOTION_SECONDS = 400, 400
VARIABLE = "AURORA_VLLM"
OWN, KEY, TRIED = "my-vllm", "the-owner's-key", "tried"

pytestmark = pytest.mark.skipif(
    VARIABLE not in os.environ, reason="vLLM has an environment of its own: make e2e-vllm"
)


@pytest.fixture(scope="module")
def folders(cluster: Cluster) -> dict[str, Path]:
    """What the images lack, once the namespaces have claims of it."""
    folders = {**python_folders(), "vllm": Path(os.environ[VARIABLE]).resolve()}
    cluster.apply(*namespaces(SYSTEM, NAMESPACE, folders))
    return folders


@pytest.fixture(scope="module")
def installed(cluster: Cluster, folders: dict[str, Path], models: Models) -> None:
    """The chart, models, a place for the buffer's file, and a client's token."""
    values = place.FOLDER / "vllm-values.yaml"
    values.write_text(json.dumps(chart_values([NAMESPACE])))
    cluster.helm(
        *("install", "aurora-vllm", CHART, "--namespace", SYSTEM, "--values", values),
        *("--wait", "--timeout", "90s"),
    )
    cluster.apply(
        *claimed(NAMESPACE, "models", models.folder),
        volume(NAMESPACE, f"redis-{NAME}-buffer-0", writable_folder("vllm-redis")),
        volume(NAMESPACE, f"redis-{TRIED}-buffer-0", writable_folder("tried-redis")),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{NAME}-tokens", "namespace": NAMESPACE},
            "data": {"client": base64.b64encode(TOKEN.encode()).decode()},
        },
    )


@pytest.fixture(scope="module")
def url(
    cluster: Cluster, installed: None, folders: dict[str, Path], models: Models
) -> Iterator[str]:
    cluster.apply(vllm_deployment(NAMESPACE, models, python_folders(), vllm=folders["vllm"]))
    cluster.await_that(lambda: is_ready(cluster), "the deployment is ready", READY_SECONDS)
    address = cluster.get("-n", NAMESPACE, "service", f"{NAME}-inference")["spec"]["clusterIP"]
    yield f"http://{address}:8000"
    cluster.kubectl("-n", NAMESPACE, "delete", RESOURCE, "--ignore-not-found")


def status_of(cluster: Cluster, name: str = NAME) -> dict[str, Any]:
    return cluster.get("-n", NAMESPACE, f"auroradeployment/{name}").get("status", {})


def is_ready(cluster: Cluster, name: str = NAME) -> bool:
    conditions = status_of(cluster, name).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def pods(cluster: Cluster) -> list[dict[str, Any]]:
    labels = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component=inference"
    return cluster.get("-n", NAMESPACE, "pods", "-l", labels)["items"]


def complete(
    url: str, prompt: str, tokens: int, token: str = TOKEN, model: str = NAME
) -> dict[str, Any]:
    body = {
        "model": model,
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


def served_until_promoted(
    cluster: Cluster, models: Models, url: str, name: str = NAME, **client: str
) -> list[str]:
    """Three clients send requests until a draft is promoted; what failed."""
    stop, failures = threading.Event(), []
    prompts = cycle(models.prompts("sql", 100, seed=1))

    def send() -> None:
        while not stop.is_set():
            try:
                complete(url, next(prompts), 32, **client)
            except OSError as error:
                failures.append(repr(error))
                stop.wait(1)

    with ThreadPoolExecutor(3) as pool:
        clients = [pool.submit(send) for _ in range(3)]
        try:
            cluster.await_that(
                lambda: any(
                    past["outcome"] == "Promoted"
                    for past in status_of(cluster, name).get("history", ())
                ),
                "a draft is promoted",
                PROMOTION_SECONDS,
            )
        finally:
            stop.set()
    for sending in clients:
        sending.result()
    return failures


def test_a_draft_that_learned_is_promoted_and_no_pod_is_replaced(cluster, url, models):
    before = [(pod["metadata"]["name"], restarts(pod)) for pod in pods(cluster)]

    assert served_until_promoted(cluster, models, url) == []
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


@pytest.fixture
def own(cluster: Cluster, installed: None, folders: dict[str, Path]) -> Iterator[None]:
    """A vLLM that runs before, with what its owner adds to it at the command's word."""
    # One vLLM at a time is what two cores can run.
    cluster.kubectl("-n", NAMESPACE, "delete", RESOURCE, "--ignore-not-found")
    cluster.await_that(lambda: not pods(cluster), "the pods before are gone", READY_SECONDS)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": OWN, "namespace": NAMESPACE},
        "data": {"api-key": base64.b64encode(KEY.encode()).decode()},
    }
    cluster.apply(secret, own_vllm(OWN, NAMESPACE, python_folders(), vllm=folders["vllm"]))
    cluster.await_that(lambda: own_pods(cluster), "its pod exists", READY_SECONDS)
    yield
    cluster.kubectl(
        *("-n", NAMESPACE, "delete", "--ignore-not-found", "--wait=false"),
        *(f"deployment/{OWN}", f"auroradeployment/{TRIED}"),
    )


def own_pods(cluster: Cluster) -> list[dict[str, Any]]:
    found = cluster.get("-n", NAMESPACE, "pods", "-l", f"app={OWN}")["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def attach(cluster: Cluster, *options: str) -> subprocess.CompletedProcess[str]:
    """`kubectl aurora attach …` as its owner runs it."""
    command = (
        *(sys.executable, "-m", "aurora_client._kubectl", "attach", "-n", NAMESPACE),
        *("--selector", f"app={OWN}", "--claim", "models", "--key", f"{OWN}/api-key"),
    )
    environment = {**os.environ, "KUBECONFIG": str(cluster.api.kubeconfig)}
    return subprocess.run(
        [*command, *options], env=environment, text=True, capture_output=True, timeout=60
    )


def live_draft(cluster: Cluster) -> str:
    """What the owner's vLLM itself says; empty while it does not answer."""
    found = own_pods(cluster)
    address = found[0]["status"].get("podIP", "") if found else ""
    request = urllib.request.Request(
        f"http://{address}:8000/v1/aurora/status", headers={"Authorization": f"Bearer {KEY}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            digest: str = json.load(response)["live"]["digest"]
            return digest
    except OSError:
        return ""


def test_a_vllm_that_runs_is_attached_learns_and_is_left_as_it_was(cluster, own, models):
    assert attach(cluster, "--check").returncode == 1
    changes = yaml.safe_load(attach(cluster).stdout)
    (plugin,) = changes["spec"]["template"]["spec"]["initContainers"]
    # The machine provides what the image lacks.
    plugin["volumeMounts"] += mounts(python_folders())
    patch = place.FOLDER / "attach.yaml"
    patch.write_text(yaml.safe_dump(changes))
    cluster.kubectl("-n", NAMESPACE, "patch", f"deployment/{OWN}", "--patch-file", patch)
    cluster.await_that(lambda: live_draft(cluster), "it serves with the plugin", READY_SECONDS)
    checked = attach(cluster, "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    first, (pod,) = live_draft(cluster), own_pods(cluster)

    wanted = {"selector": {"app": OWN}, "keySecretRef": {"name": OWN, "key": "api-key"}}
    made = attached_deployment(NAMESPACE, models, python_folders(), wanted)
    made["metadata"]["name"] = TRIED
    cluster.apply(made)
    cluster.await_that(lambda: is_ready(cluster, TRIED), "the deployment is ready", READY_SECONDS)
    address = cluster.get("-n", NAMESPACE, "service", f"{TRIED}-inference")["spec"]["clusterIP"]
    failures = served_until_promoted(
        cluster, models, f"http://{address}:8000", TRIED, token=KEY, model=OWN
    )
    assert failures == []
    assert live_draft(cluster) not in ("", first)

    cluster.kubectl("-n", NAMESPACE, "delete", f"auroradeployment/{TRIED}")
    cluster.await_that(lambda: live_draft(cluster) == first, "its own draft is back", 90)
    (after,) = own_pods(cluster)
    assert (after["metadata"]["uid"], restarts(after)) == (pod["metadata"]["uid"], restarts(pod))
