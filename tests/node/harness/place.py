"""The node's folder, addresses and name, all within its own namespaces."""

from __future__ import annotations

from pathlib import Path

# Set if the tests run in the node's namespaces.
VARIABLE = "AURORA_NODE_NAMESPACES"
TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parents[1]
# The folder that the registry serves.
REGISTRY_VARIABLE = "AURORA_NODE_REGISTRY"
# In memory, removed with the namespaces.
FOLDER = Path("/run/aurora-node")
# The logs of programs and pods, the only thing that is kept.
LOGS = REPOSITORY / "out/e2e"

NAME = "node"
LINK = "node0"
ADDRESS = "10.87.0.1"
PODS = "10.88.0.0/24"
DOMAIN = "cluster.local"
REGISTRY = f"{ADDRESS}:5000"
PAUSE_IMAGE = "aurora.test/pause:1"
