"""Where the node is: its folder, its addresses, its name; all within its own namespaces."""

from __future__ import annotations

from pathlib import Path

# Set where the tests run in the node's namespaces.
VARIABLE = "AURORA_NODE_NAMESPACES"
TESTS = Path(__file__).resolve().parents[1]
REPOSITORY = TESTS.parents[1]
# In memory, gone with the namespaces.
FOLDER = Path("/run/aurora-node")
# The only thing that stays: what the programs and the pods said.
LOGS = REPOSITORY / "out/e2e"

NAME = "node"
LINK = "node0"
ADDRESS = "10.87.0.1"
PODS = "10.88.0.0/24"
DOMAIN = "cluster.local"
PAUSE_IMAGE = "aurora.test/pause:1"
