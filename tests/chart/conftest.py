"""Renders the chart with Helm."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy/helm/aurora"
VERSION = "1.36.2"
_MONITORS = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


@pytest.fixture(scope="session")
def chart() -> Path:
    return CHART


@pytest.fixture(scope="session")
def call_helm(helm: Path) -> Callable:
    """Runs Helm with a file of values; returns the finished process."""

    def call(command: list[str], values: dict[str, Any], folder: Path):
        path = folder / "values.yaml"
        path.write_text(yaml.safe_dump(values))
        return subprocess.run(
            [helm, *command, CHART, "--values", path, "--kube-version", VERSION],
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def render(call_helm, tmp_path) -> Callable:
    """The manifests of a release named `aurora`, as text."""

    def render(values: dict[str, Any], *, namespace: str = "aurora-system", monitors=False) -> str:
        command = ["template", "aurora", "--namespace", namespace]
        if monitors:
            command += [f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in _MONITORS]
        result = call_helm(command, values, tmp_path)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return render


@pytest.fixture
def objects(render) -> Callable:
    """The rendered manifests as objects."""

    def objects(values: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
        return [each for each in yaml.safe_load_all(render(values, **options)) if each]

    return objects


@pytest.fixture(scope="session")
def exported() -> dict[str, set[str]]:
    """The labels of every exported series, by its name."""
    # Imported only here: it imports the components, and torch.
    from support.exported import exported_series

    return exported_series()
