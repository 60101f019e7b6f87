"""A whole deployment run by `aurora up`: every component real, with tiny models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai
import pytest
import yaml

from aurora_client import AuroraClient, AuroraClientError, Deployment, OperatorClient
from aurora_common.port import free_port

NAME = "chat"
READY_SECONDS = 180
# It takes about one at rest; a component that waits for its drain deadline takes longer.
STOP_SECONDS = 8
POLL_SECONDS = 0.1
COMPONENTS = ("redis", "buffer", "inference", "trainer")


def _wait_for(condition: Callable[[], object], *, what: str, seconds: float = READY_SECONDS):
    """The condition's first true value; fails with `what` if it never comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"{what} did not happen within {seconds} s")


@dataclass
class Aurora:
    """A running deployment."""

    process: subprocess.Popen
    data: Path
    http_port: int
    grpc_port: int

    @property
    def said(self) -> str:
        """What `aurora up` printed."""
        return (self.data.parent / "aurora.log").read_text()

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/v1"

    def operator_file(self) -> dict | None:
        try:
            return json.loads((self.data / "operator.json").read_text())
        except (OSError, ValueError):
            return None

    def status(self) -> Deployment | None:
        """The operator's answer; None while it is unreachable."""
        found = self.operator_file()
        if found is None:
            return None
        try:
            with OperatorClient(found["address"]) as operator:
                return operator.status()
        except AuroraClientError:
            return None

    def pid(self, component: str) -> int | None:
        if component == "operator":
            found = self.operator_file()
            return found and found["pid"]
        status = self.status()
        return status and next((c.pid for c in status.components if c.name == component), None)

    def is_ready(self) -> bool:
        status = self.status()
        return (
            status is not None
            and {component.name for component in status.components} == set(COMPONENTS)
            and all(component.ready for component in status.components)
        )

    def counters(self):
        with AuroraClient(f"127.0.0.1:{self.grpc_port}") as client:
            return client.counters()

    def kill(self, component: str) -> None:
        """Sends SIGKILL and waits until a successor is ready."""
        before = self.pid(component)
        assert before
        os.kill(before, signal.SIGKILL)
        _wait_for(
            lambda: self.pid(component) not in (None, before) and self.is_ready(),
            what=f"a new {component}",
        )

    def address(self, component: str) -> str:
        status = self.status()
        assert status is not None
        return next(c.address for c in status.components if c.name == component)


@pytest.fixture
def wait_for() -> Callable:
    return _wait_for


@pytest.fixture(scope="module")
def learning(publish) -> dict:
    """A random draft to begin with, its kind, and what the trainer learns from."""
    draft, checkpoint = publish("draft-0", 1)
    return {"kind": "Standalone", "draft": draft, "checkpoint": checkpoint, "targets": "Recorded"}


@pytest.fixture(scope="module")
def aurora(target_folder, learning, tmp_path_factory) -> Iterator[Aurora]:
    """A deployment that starts from a random draft and trains after every few requests."""
    folder = tmp_path_factory.mktemp("deployment")
    manifest = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "target": {"uri": target_folder.as_uri(), "dtype": "float32"},
            "draft": {
                "kind": learning["kind"],
                "initialCheckpoint": {
                    "uri": learning["draft"].as_uri(),
                    "digest": learning["checkpoint"].digest,
                },
                "speculationLength": {"max": 4, "adaptive": True},
            },
            "buffer": {"embedded": {"appendfsync": "always"}},
            "trainer": {
                "targets": learning["targets"],
                "trigger": {"minNewTrajectories": 24, "minInterval": "1s"},
                "hyperparameters": {"learningRate": "3e-3", "batchSize": 8, "stepsPerRound": 60},
            },
            "modelStore": {"pvc": {"claimName": "models"}},
            "rollout": {
                "steps": [{"weightPercent": 20}, {"weightPercent": 50}],
                "analysis": {"alpha": "0.05", "minRequests": 20, "maxDuration": "60s"},
            },
        },
    }
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    http_port, grpc_port = free_port(), free_port()
    with (folder / "aurora.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "aurora_client", "up", "-f", str(path)),
                *("--data-dir", str(folder / "data")),
                *("--http-port", str(http_port), "--grpc-port", str(grpc_port)),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    running = Aurora(process, folder / "data", http_port, grpc_port)
    try:
        _wait_for(running.is_ready, what="every component ready")
        yield running
    finally:
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0


@dataclass
class Load:
    """Clients that send requests back to back, and the outcomes."""

    url: str
    streams: int = 4
    served: int = 0
    failed: int = 0
    accepted_tokens: int = 0
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Load:
        self.threads = [
            threading.Thread(target=self._stream, args=(n,)) for n in range(self.streams)
        ]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def wait_for_more(self, count: int) -> None:
        goal = self.served + count
        _wait_for(lambda: self.served >= goal, what=f"{count} more requests served")

    def _stream(self, number: int) -> None:
        # Requests refused or sent before the server is ready were never in flight: not failures.
        with openai.OpenAI(base_url=self.url, api_key="none", max_retries=0) as client:
            while not self.stop.is_set():
                number += self.streams
                self._complete(client, number)

    def _complete(self, client: openai.OpenAI, number: int) -> None:
        try:
            completion = client.completions.create(
                model=NAME,
                prompt=f"select {number % 50} from b",
                max_tokens=16,
                temperature=0.8,
                seed=number,
                extra_body={"ignore_eos": True},
            )
        except openai.OpenAIError as error:
            was_in_flight = not (
                type(error.__cause__).__name__ == "ConnectError"
                or getattr(error, "status_code", None) == 503
            )
            with self.lock:
                self.failed += was_in_flight
            time.sleep(POLL_SECONDS)
            return
        with self.lock:
            self.served += 1
            self.accepted_tokens += completion.model_extra["aurora"]["accepted_tokens"]


@pytest.fixture
def load(aurora) -> Iterator[Load]:
    with Load(aurora.http) as running:
        yield running
