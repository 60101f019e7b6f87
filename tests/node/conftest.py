"""A Kubernetes node for the run; its tests are skipped outside its namespaces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import place
from harness.cluster import Cluster
from harness.host_folder import writable_folder
from harness.model import Models, models_in

_LIMIT_SECONDS = 900
_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE not in item.path.parents:
            continue
        item.add_marker(pytest.mark.node)
        item.add_marker(pytest.mark.timeout(_LIMIT_SECONDS))
        if place.VARIABLE not in os.environ:
            item.add_marker(
                pytest.mark.skip(reason="a node runs in namespaces of its own: make e2e")
            )


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(Path(os.environ["AURORA_K8S_BIN"]))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def models() -> Models:
    return models_in(writable_folder("models"))
