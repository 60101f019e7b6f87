"""Switches the draft of a running vLLM between two decode steps, and records its target.

A plugin for the user's own vLLM: it needs nothing but what vLLM brings along.
"""

from __future__ import annotations

VERSION = "0.1.0"
