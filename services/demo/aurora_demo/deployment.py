"""One side of the demo: an AuroraDeployment that `aurora up` runs from a manifest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml

from aurora_client import OperatorClient, UnavailableError
from aurora_common.errors import AuroraError
from aurora_common.errors import UnavailableError as NotReadyError
from aurora_demo.models import DemoModels
from aurora_demo.scenario import Side

_READY_SECONDS = 120.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.25
_CLAIM = "models"


@dataclass(frozen=True, slots=True)
class Ports:
    http: int
    grpc: int


def manifest(side: Side, models: DemoModels) -> dict[str, object]:
    """The AuroraDeployment of a side; they differ only in the trainer, which `static` suspends."""
    return {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": side},
        "spec": {
            "target": {"uri": models.target.as_uri(), "dtype": models.target_dtype},
            "draft": {
                "kind": models.kind,
                "initialCheckpoint": {"uri": models.draft.as_uri(), "digest": models.draft_digest},
                "speculationLength": {"max": 12, "adaptive": True},
            },
            "inference": {"maxBatch": 8, "maxContextTokens": 512},
            "buffer": {
                "embedded": {"appendfsync": "everysec"},
                "retention": {"maxAge": "1h", "maxBytes": "1Gi"},
            },
            "trainer": {
                "suspend": side == "static",
                "trigger": {"minNewTrajectories": 48, "minInterval": "1s"},
                # A head's states are not recorded, and whole distributions come with them.
                "targets": "Recorded" if models.kind == "Standalone" else "Recompute",
                "objective": "ForwardKL" if models.kind == "Standalone" else "LK",
                "hyperparameters": models.hyperparameters,
                "holdoutPercent": 15,
            },
            "modelStore": {"pvc": {"claimName": _CLAIM}, "keep": 5},
            "rollout": {
                "steps": [{"weightPercent": 20}, {"weightPercent": 50}],
                "analysis": {
                    "alpha": "0.01",
                    "minEffectBps": 0,
                    "minRequests": 24,
                    "maxDuration": "180s",
                },
            },
        },
    }


class Deployment:
    """A running deployment; leaving the block stops everything that it started."""

    def __init__(self, side: Side, folder: Path, ports: Ports, models: DemoModels) -> None:
        self.side = side
        self.folder = folder
        self.base_url = f"http://127.0.0.1:{ports.http}/v1"
        self._ports = ports
        self._models = models
        self._process: subprocess.Popen[bytes] | None = None
        self._operator: OperatorClient | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "manifest.yaml"
        path.write_text(yaml.safe_dump(manifest(self.side, self._models), sort_keys=False))
        with (self.folder / "aurora.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "aurora_client", "up", "-f", str(path)),
                    *("--data-dir", str(self.folder / "data")),
                    *("--http-port", str(self._ports.http)),
                    *("--grpc-port", str(self._ports.grpc)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | {"PYTHONSAFEPATH": "1"},
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._operator is not None:
            self._operator.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def operator(self) -> OperatorClient:
        """A client of this deployment's operator; raises NotReadyError until it is up."""
        if self._operator is None:
            try:
                content = json.loads((self.folder / "data" / "operator.json").read_bytes())
            except (OSError, ValueError) as error:
                raise NotReadyError(f"the operator of {self.side} is not up yet") from error
            self._operator = OperatorClient(content["address"])
        return self._operator

    @property
    def published(self) -> Path:
        """The folder of the drafts that were published."""
        return self.folder / "data" / "pvc" / _CLAIM / self.side

    def component_address(self, name: str) -> str | None:
        """host:port of a component; None if this deployment has none of that name."""
        components = self.operator.status().components
        return next((each.address for each in components if each.name == name), None)

    def wait_until_ready(self) -> None:
        """Waits until every component is ready; raises AuroraError naming those that are not."""
        deadline = time.monotonic() + _READY_SECONDS
        waiting_for = "its operator"
        while time.monotonic() < deadline:
            if self._process is not None and self._process.poll() is not None:
                raise AuroraError(
                    f"the {self.side} deployment exited early; see {self.folder / 'aurora.log'}"
                )
            try:
                components = self.operator.status().components
            except (NotReadyError, UnavailableError):
                pass
            else:
                missing = [each for each in components if not each.ready]
                if components and not missing:
                    return
                waiting_for = ", ".join(f"{each.name} {each.message}".strip() for each in missing)
            time.sleep(_POLL_SECONDS)
        raise AuroraError(
            f"the {self.side} deployment was not ready within {_READY_SECONDS:.0f} s: "
            f"waiting for {waiting_for}; its logs are in {self.folder / 'data' / 'logs'}"
        )
