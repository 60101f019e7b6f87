"""Installs an image's environment: what the named extras need, or without any the code alone.

It runs in the builder, with nothing but Python and pip.
"""

from __future__ import annotations

import compileall
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from py_compile import PycInvalidationMode

_ENVIRONMENT = Path("/opt/aurora")


def requirements(project: Path, extras: Sequence[str]) -> list[str]:
    """What the project and these of its extras require, as pip takes it; raises KeyError."""
    metadata = tomllib.loads(project.read_text())["project"]
    own = re.compile(rf"{re.escape(metadata['name'])}\[(.+)\]")
    found: list[str] = list(metadata["dependencies"])
    waiting = list(extras)
    while waiting:
        for each in metadata["optional-dependencies"][waiting.pop()]:
            if inner := own.fullmatch(each):
                waiting += inner[1].split(",")
            else:
                found.append(each)
    return sorted(set(found))


def main(extras: Sequence[str]) -> None:
    wanted = requirements(Path("pyproject.toml"), extras) if extras else ["--no-deps", "."]
    pip = [sys.executable, "-m", "pip", "--python", str(_ENVIRONMENT / "bin/python")]
    options = ["--no-cache-dir", "--no-compile", "--constraint", "constraints.txt"]
    subprocess.run([*pip, "install", *options, *wanted], check=True)
    # A read-only file system cannot keep bytecode, so that every start would compile again. By
    # hashes that are not checked, since layers may change the files' times.
    compileall.compile_dir(
        _ENVIRONMENT / "lib",
        quiet=2,
        workers=0,
        invalidation_mode=PycInvalidationMode.UNCHECKED_HASH,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
