"""`aurora up` in front of a stock vLLM, and clients that give its draft something to learn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
import yaml

from aurora_client import AuroraClientError, Deployment, OperatorClient
from aurora_common.port import free_port

NAME = "chat"
READY_SECONDS = 300
PROMOTED_SECONDS = 420
STOP_SECONDS = 40


@dataclass
class Aurora:
    process: subprocess.Popen
    data: Path
    http_port: int

    def status(self) -> Deployment | None:
        """None while the operator cannot be reached."""
        try:
            address = json.loads((self.data / "operator.json").read_text())["address"]
            with OperatorClient(address) as operator:
                return operator.status()
        except (OSError, ValueError, AuroraClientError):
            return None

    def component(self, name: str):
        status = self.status()
        return status and next((one for one in status.components if one.name == name), None)

    def is_ready(self) -> bool:
        status = self.status()
        return status is not None and all(one.ready for one in status.components)

    def wait_for(self, condition, what: str, seconds: float = READY_SECONDS):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"no {what}: {self.said()}\n{self.status()}"
            time.sleep(0.2)
        return found

    def said(self) -> str:
        logs = sorted((self.data / "logs").glob("*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-3000:]}" for log in logs)

    def promoted(self) -> list[Any]:
        """The verdicts that promoted a draft."""
        status = self.status()
        return [past for past in status.history if past.outcome == "Promoted"] if status else []


def manifest(**spec: Any) -> dict[str, Any]:
    """A deployment whose drafts are soon trained and soon judged."""
    return {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "buffer": {"embedded": {}},
            "trainer": {
                "trigger": {"minNewTrajectories": 48, "minInterval": "1s"},
                "hyperparameters": {"learningRate": "3e-3", "batchSize": 8, "stepsPerRound": 60},
            },
            "modelStore": {"pvc": {"claimName": "models"}},
            "rollout": {
                "steps": [{"weightPercent": 50}],
                "analysis": {"alpha": "0.05", "minRequests": 40, "maxDuration": "5m"},
                "guardrails": [],
            },
            **spec,
        },
    }


@contextmanager
def running(document: dict[str, Any], folder: Path, **environment: str) -> Iterator[Aurora]:
    """`aurora up` until the block ends, once all of it is ready; leaves no process behind."""
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(document))
    http_port = free_port()
    with (folder / "aurora.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "aurora_client", "up", "-f", str(path)),
                *("--data-dir", str(folder / "data"), "--http-port", str(http_port)),
                *("--grpc-port", str(free_port())),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=os.environ | environment,
        )
    aurora = Aurora(process, folder / "data", http_port)
    try:
        aurora.wait_for(aurora.is_ready, "deployment that is ready")
        yield aurora
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        assert process.wait(STOP_SECONDS) == 0
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive


@dataclass
class Load:
    """Clients that send few distinct prompts back to back."""

    port: int
    key: str = "none"
    model: str = NAME
    served: int = 0
    errors: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self._stream, args=(n,)) for n in range(4)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _stream(self, number: int) -> None:
        url = f"http://127.0.0.1:{self.port}/v1"
        with openai.OpenAI(base_url=url, api_key=self.key, max_retries=0) as client:
            while not self.stop.is_set():
                number += 4
                try:
                    client.completions.create(
                        model=self.model,
                        prompt=[number % 20 + 2, 7, 9],
                        max_tokens=32,
                        temperature=0.0,
                        extra_body={"ignore_eos": True},
                    )
                except openai.OpenAIError as error:
                    self.errors.append(repr(error))
                    time.sleep(0.2)
                else:
                    self.served += 1
