"""The clients that people bring, each by its script of examples/clients."""

from __future__ import annotations

import pytest
from benchmarks.clients import CLIENTS, NotInstalledError, Served, run

from .conftest import MODEL

LIGHT = [client for client in CLIENTS if not client.heavy]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("client", LIGHT, ids=lambda client: client.name)
def test_the_clients_script_passes(process, target_folder, client):
    try:
        run(client, Served(f"{process.http}/v1", MODEL, target_folder))
    except NotInstalledError as error:
        pytest.skip(f"its package cannot be installed here: {error}")
