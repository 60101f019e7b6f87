"""How a command fails: one line for a person."""

from __future__ import annotations


class CommandError(Exception):
    """What a command cannot do, and what would help; printed as it is, exit code 1."""
