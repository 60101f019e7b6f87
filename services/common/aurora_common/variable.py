"""Environment variables by which an operator tells a component what no argument should say.

Arguments can be read by all.
"""

from __future__ import annotations

# The URL of an external Redis, which may contain a password.
REDIS_URL = "AURORA_REDIS_URL"
