"""`aurora up` with a stock vLLM: its draft learns from the traffic, is judged, and is promoted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import openai
import psutil
import pytest
import torch
import yaml
from stock.models import CONTEXT_TOKENS
from stock.server import VARIABLE

from aurora_client import AuroraClientError, Deployment, OperatorClient
from aurora_common.port import free_port
from aurora_model.draft import publish_draft
from aurora_model.draft.standalone import StandaloneDraft
from aurora_model.target import target_identity

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


@pytest.fixture(scope="module")
def draft(models, tmp_path_factory) -> Path:
    """Half of the target's layers, with noise: it has much to learn."""
    made = StandaloneDraft.load(models.start, dtype=torch.float32, device="cpu")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * 1.0)
    store = tmp_path_factory.mktemp("drafts")
    return publish_draft(made, store, name="begin", target=target_identity(models.target))[0]


@pytest.fixture(scope="module")
def aurora(models, draft, tmp_path_factory) -> Iterator[Aurora]:
    folder = tmp_path_factory.mktemp("up")
    manifest = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "target": {"uri": models.target.as_uri(), "dtype": "float32"},
            "engine": {
                "type": "vllm",
                "executable": str(Path(os.environ[VARIABLE]) / "bin/vllm"),
                "args": ["--enforce-eager", "--max-num-seqs=16", "--max-num-batched-tokens=512"],
            },
            "inference": {"maxContextTokens": CONTEXT_TOKENS},
            "draft": {
                "initialCheckpoint": {"uri": draft.as_uri()},
                "speculationLength": {"max": 4},
            },
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
        },
    }
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest))
    http_port = free_port()
    environment = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
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
            env=environment,
        )
    running = Aurora(process, folder / "data", http_port)
    try:
        running.wait_for(running.is_ready, "deployment that is ready")
        yield running
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
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            while not self.stop.is_set():
                number += 4
                try:
                    client.completions.create(
                        model=NAME,
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


@pytest.fixture
def load(aurora) -> Iterator[Load]:
    with Load(aurora.http_port) as running:
        yield running


def promoted(aurora):
    status = aurora.status()
    return status and [past for past in status.history if past.outcome == "Promoted"]


def test_a_draft_that_learned_from_vllms_traffic_is_promoted_without_a_restart(aurora, load):
    verdicts = aurora.wait_for(lambda: promoted(aurora), "promotion", PROMOTED_SECONDS)

    assert verdicts[0].effect_bps >= 1000
    assert load.errors == []
    assert aurora.component("engine").restarts == 0
    assert aurora.component("inference").restarts == 0


def test_the_command_shows_engine_gateway_and_evidence(aurora, load):
    aurora.wait_for(lambda: promoted(aurora), "promotion", PROMOTED_SECONDS)
    command = [sys.executable, "-m", "aurora_client", "status", "--data-dir", str(aurora.data)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert shown.returncode == 0, shown.stderr
    ready = ("engine     ● ready", "inference  ● ready")
    for text in (*ready, "AcceptanceBetter", "requests on stable"):
        assert text in shown.stdout, shown.stdout


def test_a_vllm_that_dies_comes_back_with_the_stable_draft(aurora, load):
    stable = aurora.wait_for(lambda: promoted(aurora), "promotion")[0].digest
    before = aurora.component("engine")
    os.kill(before.pid, signal.SIGKILL)
    aurora.wait_for(
        lambda: (now := aurora.component("engine")) and now.restarts > before.restarts, "restart"
    )
    aurora.wait_for(aurora.is_ready, "deployment that is ready again")

    served = load.served
    aurora.wait_for(lambda: load.served > served + 20, "more requests served")
    status = aurora.status()
    assert status.stable.digest in {stable, *(past.digest for past in promoted(aurora))}
