import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import grpc
import psutil
import pytest
import yaml

from aurora.operator.v1 import operator_pb2, operator_pb2_grpc
from aurora_common.checkpoint import CheckpointManifest, folder_digest
from aurora_common.durable import new_folder
from aurora_common.tls import NO_PROXY

# The stand-in components, and the cluster tests' `support`, which they use.
STANDINS = os.pathsep.join(
    (str(Path(__file__).with_name("standins")), str(Path(__file__).parents[1] / "cluster"))
)


def wait_until(condition, *, seconds=30.0, why=lambda: ""):
    """Polls a condition until it is true and returns its value."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"does not become true: {why()}"
        time.sleep(0.02)
    return found


def write_draft(folder, number, *, acceptance, slowdown=1.0):
    """A checkpoint in name only; without acceptance, the stand-in inference refuses it."""
    with new_folder(folder) as inside:
        (inside / "model.safetensors").write_text(f"draft {number}")
        manifest = CheckpointManifest(
            name=f"ckpt-{number}",
            digest=folder_digest(inside),
            target_digest="sha256:t",
            tokenizer_digest="sha256:k",
            trained_through=f"{number}-0",
            created_at_ms=number,
            metrics={} if acceptance is None else {"acceptance": acceptance, "slowdown": slowdown},
        )
        (inside / "aurora.json").write_bytes(manifest.to_json())
    return manifest


class Deployment:
    """A deployment under a real guardian, with stand-ins as its components."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.manifest = folder / "manifest.yaml"
        target = folder / "target"
        target.mkdir()
        (target / "config.json").write_text("{}")
        self.content = {
            "apiVersion": "aurora.dev/v1alpha1",
            "kind": "AuroraDeployment",
            "metadata": {"name": "chat"},
            "spec": {
                "target": {"uri": target.as_uri()},
                "buffer": {"embedded": {}},
                "modelStore": {"pvc": {"claimName": "models"}, "keep": 2},
                "rollout": {
                    "steps": [{"weightPercent": 20}, {"weightPercent": 50}],
                    "analysis": {"method": "Canary", "minRequests": 30},
                },
            },
        }
        self.guardians = []

    def begin_with(self, *, acceptance):
        """Names an initial draft in the manifest."""
        folder = self.folder / "initial"
        manifest = write_draft(folder, 0, acceptance=acceptance)
        self.content["spec"]["draft"] = {
            "initialCheckpoint": {"uri": folder.as_uri(), "digest": manifest.digest}
        }
        return manifest

    def publish(self, number, *, acceptance, slowdown=1.0):
        folder = self.data / "pvc" / "models" / "chat"
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{number}"
        manifest = write_draft(beside, number, acceptance=acceptance, slowdown=slowdown)
        digest = manifest.digest.removeprefix("sha256:")
        beside.rename(folder / f"ckpt-{number}-{digest[:12]}")
        return manifest

    def up(self, *flags, stdin=None):
        """Starts a guardian; `stdin`: a file to read the manifest from."""
        self.manifest.write_text(yaml.safe_dump(self.content))
        source = str(self.manifest) if stdin is None else "-"
        guardian = subprocess.Popen(
            [
                *(sys.executable, "-m", "aurora_operator", "up", "-f", source),
                *("--data-dir", str(self.data), "--http-port", "0", "--grpc-port", "0", *flags),
            ],
            env={**os.environ, "PYTHONPATH": STANDINS, "PYTHONSAFEPATH": "1"},
            stdin=stdin,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.guardians.append(guardian)
        return guardian

    def operator(self):
        """The operator's addresses; None if it does not run."""
        try:
            found = json.loads((self.data / "operator.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return found if psutil.pid_exists(found["pid"]) else None

    def call(self, method, request):
        """Calls the operator; None if it does not answer in time."""
        found = self.operator()
        if found is None:
            return None
        with grpc.insecure_channel(found["address"], options=[NO_PROXY]) as channel:
            stub = operator_pb2_grpc.OperatorStub(channel)
            try:
                return getattr(stub, method)(request, timeout=5)
            except grpc.RpcError as error:
                if error.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    grpc.StatusCode.CANCELLED,
                ):
                    return None
                raise

    def get(self):
        return self.call("GetDeployment", operator_pb2.GetDeploymentRequest())

    def command(self, name, rollout_id=""):
        order = getattr(operator_pb2.CommandRolloutRequest, f"COMMAND_{name.upper()}")
        request = operator_pb2.CommandRolloutRequest(command=order, rollout_id=rollout_id)
        return self.call("CommandRollout", request)

    def status(self):
        with suppress(FileNotFoundError):
            return json.loads((self.data / "status.json").read_bytes())
        return {}

    def wait_for_status(self, condition, *, seconds=30.0):
        return wait_until(
            lambda: condition(self.status()), seconds=seconds, why=lambda: self.status()
        )

    def pids(self):
        """The components' processes."""
        with suppress(FileNotFoundError, NotADirectoryError):
            processes = json.loads((self.data / "processes.json").read_bytes())["processes"]
            return {name: process["pid"] for name, process in processes.items()}
        return {}

    def wait_until_ready(self):
        def ready():
            found = self.get()
            return found and found.components and all(part.ready for part in found.components)

        wait_until(ready, why=lambda: self.get())

    def log(self, component):
        return (self.data / "logs" / f"{component}.log").read_text()

    def down(self, guardian):
        """Terminates a guardian; its exit code and stderr."""
        guardian.send_signal(signal.SIGTERM)
        _, text = guardian.communicate(timeout=45)
        return guardian.returncode, text


def _runs(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.fixture
def deployment(tmp_path):
    made = Deployment(tmp_path)
    yield made
    for guardian in made.guardians:
        if guardian.poll() is None:
            guardian.terminate()
        guardian.communicate(timeout=45)
    wait_until(lambda: not any(_runs(pid) for pid in made.pids().values()))


@pytest.fixture
def runs():
    return _runs


@pytest.fixture
def waits():
    return wait_until
