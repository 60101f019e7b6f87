"""Environment variables that the operator sets on components.

They carry secrets: every user of the machine can read a process's arguments.
"""

from __future__ import annotations

# The URL of an external Redis, which may contain a password.
REDIS_URL = "AURORA_REDIS_URL"
