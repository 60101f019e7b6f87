"""The version of the installed Aurora."""

from __future__ import annotations

from importlib.metadata import version

VERSION = version("aurora-serving")
