"""A user's journey on a cluster, one step per test, each beginning where the last ended."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import place, registry
from harness.cluster import Cluster
from harness.container_runtime import kill_container, running_containers
from harness.endpoint_watch import EndpointWatch
from harness.host_folder import claimed, python_folders, volume, writable_folder
from harness.installation import ANOTHER_IMAGE, CHART, chart_values, deployment, namespaces
from harness.model import Models
from harness.traffic import Traffic, complete

SYSTEM, NAMESPACE, NAME = "aurora-system", "serving", "chat"
TOKEN = "a-client's-token"
REPLICAS = 2
PROMPTS = 200
READY_SECONDS = 300
PROMOTION_SECONDS = 300
RESOURCE = f"auroradeployment/{NAME}"


@dataclass(frozen=True)
class Chat:
    """The deployment under test, as its user sees it."""

    cluster: Cluster
    url: str

    def status(self) -> dict[str, Any]:
        return self.cluster.get("-n", NAMESPACE, RESOURCE).get("status", {})

    def promoted(self) -> list[dict[str, Any]]:
        return [past for past in self.status().get("history", ()) if past["outcome"] == "Promoted"]

    def await_ready(self, what: str) -> None:
        self.cluster.await_that(lambda: self.is_ready(), what, READY_SECONDS)

    def is_ready(self) -> bool:
        found = self.cluster.get("-n", NAMESPACE, RESOURCE)
        status = found.get("status", {})
        return status.get("observedGeneration") == found["metadata"]["generation"] and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in status.get("conditions", ())
        )

    def pods(self, component: str) -> list[dict[str, Any]]:
        labels = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component={component}"
        return self.cluster.get("-n", NAMESPACE, "pods", "-l", labels)["items"]


@pytest.fixture(scope="module")
def values(cluster: Cluster) -> Path:
    """The chart's values, once the namespaces are there."""
    cluster.apply(*namespaces(SYSTEM, NAMESPACE, python_folders()))
    path = place.FOLDER / "values.yaml"
    path.write_text(json.dumps(chart_values([NAMESPACE])))
    return path


@pytest.fixture(scope="module")
def published(cluster: Cluster) -> tuple[str, ...]:
    """The chart in the registry, as Helm's arguments."""
    account = ("--username", registry.USER, "--password", registry.PASSWORD)
    cluster.helm("registry", "login", place.REGISTRY, *account, "--plain-http")
    cluster.helm("package", CHART, "--destination", place.FOLDER)
    (package,) = place.FOLDER.glob("aurora-*.tgz")
    cluster.helm("push", package, f"oci://{place.REGISTRY}/charts", "--plain-http")
    return (f"oci://{place.REGISTRY}/charts/aurora", "--plain-http")


@pytest.fixture(scope="module")
def chart(cluster: Cluster, published: tuple[str, ...], values: Path) -> None:
    cluster.helm(
        *("install", "aurora", *published, "--namespace", SYSTEM, "--values", values),
        *("--wait", "--timeout", "90s"),
    )


@pytest.fixture(scope="module")
def chat(cluster: Cluster, chart: None, models: Models) -> Chat:
    token = base64.b64encode(TOKEN.encode()).decode()
    cluster.apply(
        *claimed(NAMESPACE, "models", models.folder),
        volume(NAMESPACE, f"redis-{NAME}-buffer-0", writable_folder("redis")),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"{NAME}-tokens", "namespace": NAMESPACE},
            "data": {"client": token},
        },
        deployment(NAMESPACE, REPLICAS, models, python_folders()),
    )
    cluster.await_that(
        lambda: "status" in cluster.get("-n", NAMESPACE, RESOURCE), "the operator sees it", 30
    )
    found = Chat(cluster, "")
    found.await_ready("the deployment is ready")
    address = cluster.get("-n", NAMESPACE, "service", f"{NAME}-inference")["spec"]["clusterIP"]
    return Chat(cluster, f"http://{address}:8000")


@pytest.fixture(scope="module")
def traffic(chat: Chat, models: Models) -> Iterator[Traffic]:
    """Requests from the first promotion to the uninstallation, of which none may fail."""
    traffic = Traffic(chat.url, TOKEN, NAME)
    traffic.turn_to(models.prompts("sql", PROMPTS, seed=1))
    with traffic:
        yield traffic


@pytest.fixture(autouse=True)
def no_request_fails(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "traffic" in request.fixturenames:
        assert request.getfixturevalue("traffic").failures == []


def test_the_chart_tests_itself(cluster, chart):
    assert "Succeeded" in cluster.helm("test", "aurora", "--namespace", SYSTEM)


def test_only_a_client_with_a_token_is_served(cluster, chat, models):
    (prompt,) = models.prompts("python", 1, seed=3)

    with pytest.raises(urllib.error.HTTPError) as refused:
        complete(chat.url, "another token", NAME, prompt)

    with refused.value as answer:
        assert answer.code == 401
    # A pod is ready once it serves, which may be before the operator has staged the first draft.
    cluster.await_that(
        lambda: complete(chat.url, TOKEN, NAME, prompt).drafted_tokens > 0, "a draft serves", 60
    )


def test_a_draft_that_learned_from_traffic_is_promoted(cluster, chat, traffic):
    first = chat.status()["stable"]["digest"]

    cluster.await_that(lambda: chat.promoted(), "a promotion", PROMOTION_SECONDS)

    promoted = chat.promoted()[-1]
    assert promoted["reason"] == "ReplayBetter"
    assert promoted["savedBps"] > 0
    assert chat.status()["stable"]["digest"] != first
    assert last_in_redis(cluster) > 0


def test_traffic_that_shifts_brings_another_promotion(cluster, chat, traffic, models):
    before = {past["id"] for past in chat.promoted()}

    traffic.turn_to(models.prompts("logs", PROMPTS, seed=2))

    def is_promoted() -> bool:
        return bool({past["id"] for past in chat.promoted()} - before)

    cluster.await_that(is_promoted, "a promotion after the shift", PROMOTION_SECONDS)


def test_kubectl_aurora_describes_the_rollouts(cluster, chat):
    output = cluster.kubectl("aurora", "get", NAME, "-n", NAMESPACE)

    assert chat.promoted()[0]["id"] in output
    assert all(pod["metadata"]["name"] in output for pod in chat.pods("inference"))


def test_a_second_trainer_shares_the_steps_of_the_first(cluster, chat, traffic):
    def scale(replicas: int) -> None:
        change = json.dumps(
            {
                "spec": {
                    "trainer": {"replicas": replicas},
                    "security": {"trainerTraffic": "Plaintext"},
                }
            }
        )
        cluster.kubectl("patch", RESOURCE, "-n", NAMESPACE, "--type=merge", "-p", change)
        cluster.await_that(
            lambda: len(chat.pods("rank")) == replicas - 1, f"{replicas} trainers", 60
        )

    scale(2)
    cluster.await_that(lambda: shares_computed(chat) > 0, "a step is shared", PROMOTION_SECONDS)
    scale(1)


def test_a_kill_of_redis_fails_no_request(cluster, chat, traffic):
    served = len(traffic.served)

    def containers() -> dict[str, Any]:
        (pod,) = chat.pods("buffer")
        return {each["name"]: each for each in pod["status"]["containerStatuses"]}

    before = containers()["redis"]
    kill_container(before["containerID"])

    def is_back() -> bool:
        now = containers()
        restarted = now["redis"]["restartCount"] > before["restartCount"]
        return restarted and all(each["ready"] for each in now.values())

    cluster.await_that(is_back, "Redis runs again", 60)
    last = last_in_redis(cluster)
    cluster.await_that(
        lambda: last_in_redis(cluster) > last and len(traffic.served) > served,
        "traffic is recorded again",
        60,
    )


def test_another_image_rolls_the_pods_without_losing_an_endpoint(cluster, chat, traffic):
    before = {pod["metadata"]["uid"] for pod in chat.pods("inference")}

    with EndpointWatch(cluster.api, NAMESPACE, f"{NAME}-inference") as watch:
        change = {"spec": {"inference": {"image": ANOTHER_IMAGE}}}
        cluster.kubectl(
            *("patch", RESOURCE, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(change))
        )

        def is_rolled() -> bool:
            after = {pod["metadata"]["uid"] for pod in chat.pods("inference")}
            return not before & after and len(after) == REPLICAS and chat.is_ready()

        cluster.await_that(is_rolled, "every pod has the new image", READY_SECONDS)

    assert watch.fewest >= REPLICAS
    # New pods got the drafts of the others.
    served = len(traffic.served)
    cluster.await_that(lambda: len(traffic.served) > served + 20, "requests are served", 60)
    assert all(each.draft for each in traffic.served[served:])


def test_an_upgrade_of_the_chart_leaves_running_pods_alone(
    cluster, published, chat, traffic, values
):
    before = {pod["metadata"]["uid"] for pod in chat.pods("inference")}

    cluster.helm(
        *("upgrade", "aurora", *published, "--namespace", SYSTEM, "--values", values),
        *("--set", "podLabels.team=serving", "--wait", "--timeout", "90s"),
    )

    assert chat.is_ready()
    assert {pod["metadata"]["uid"] for pod in chat.pods("inference")} == before


def test_without_the_chart_running_pods_serve_on(cluster, chat, traffic):
    served = len(traffic.served)

    cluster.helm("uninstall", "aurora", "--namespace", SYSTEM, "--wait", "--timeout", "60s")

    cluster.await_that(lambda: len(traffic.served) > served + 10, "requests are served", 60)
    assert cluster.get("-n", NAMESPACE, RESOURCE)["spec"]["replicas"] == REPLICAS


def test_a_deleted_namespace_leaves_nothing(cluster, chat, traffic):
    traffic.__exit__()
    failures = list(traffic.failures)

    cluster.kubectl("delete", "namespace", NAMESPACE, SYSTEM, "--wait=false")

    def is_gone() -> bool:
        names = {each["metadata"]["name"] for each in cluster.get("namespaces")["items"]}
        return not names & {NAMESPACE, SYSTEM}

    cluster.await_that(is_gone, "the namespaces are gone", 120)
    cluster.await_that(lambda: not running_containers(), "no container runs", 30)
    assert failures == []
    # The machine's folders belong to the test; a volume serves only one claim.
    cluster.kubectl("delete", "persistentvolumes", "--all")


def last_in_redis(cluster: Cluster) -> int:
    """When the last trajectory was appended to the stream, in milliseconds; 0 if none was."""
    ask = (
        "import redis; store = redis.Redis(unix_socket_path='/tmp/redis/redis.sock'); "
        "key = 'aurora:trajectories'; print(store.exists(key) and "
        "store.xinfo_stream(key)['last-generated-id'].split(b'-')[0].decode())"
    )
    pod = f"{NAME}-buffer-0"
    return int(
        cluster.kubectl("exec", "-n", NAMESPACE, pod, "-c", "redis", "--", "python", "-c", ask)
    )


def shares_computed(chat: Chat) -> int:
    """The number of shares of the trainer's steps that other pods computed, by their metrics."""
    count = 0
    for pod in chat.pods("rank"):
        with suppress(OSError, KeyError):
            url = f"http://{pod['status']['podIP']}:9090/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
            (output,) = re.findall(r"^aurora_trainer_shares_total (\S+)$", text, re.MULTILINE)
            count += int(float(output))
    return count
