"""Environment variables by which an operator tells a component what no argument should or can say.

Arguments are the same for all replicas, and can be read by all.
"""

from __future__ import annotations

# The URL of an external Redis, which may contain a password.
REDIS_URL = "AURORA_REDIS_URL"
# Which of several trainers it is, from 0; and its address among the others'.
REPLICA_INDEX = "AURORA_REPLICA_INDEX"
POD_IP = "AURORA_POD_IP"
