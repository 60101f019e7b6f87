"""Runs the tests of a Kubernetes node: `python -m harness.run [PYTEST ARGUMENT…]`.

A kubelet, a container runtime, network links and mounts must not outlive their test, even if it is
killed. Therefore everything runs in namespaces of its own, which the kernel removes with their
first process, `inside.py`, which dies with this one. The pods' cgroups, which no namespace holds,
are removed by a process that waits for this one's end.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness import image_build, leftover, place, requirement

# Longer than the tests' own limits together: a last resort against hangs.
_LIMIT_SECONDS = 1500
_NAMESPACES = ("--net", "--mount", "--pid", "--ipc", "--mount-proc", "--kill-child")


def main(arguments: Sequence[str]) -> int:
    try:
        programs = requirement.obtain(place.REPOSITORY)
        images = image_build.obtain(place.REPOSITORY)
    except (requirement.MissingError, image_build.BuildError) as error:
        sys.stderr.write(f"e2e: {error}\n")
        return 1
    with _alone():
        return _run_and_look(programs, images, arguments)


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time: they write the same logs."""
    place.LOGS.mkdir(parents=True, exist_ok=True)
    with (place.LOGS.parent / "e2e.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("e2e: another run is under way")
        yield


def _run_and_look(programs: Path, images: Path, arguments: Sequence[str]) -> int:
    """Runs the tests, and also fails if they left something behind."""
    leftover.remove()
    before = leftover.snapshot()
    with leftover.guardian():
        result = _run(programs, images, arguments)
    left = leftover.description(before, leftover.snapshot())
    for line in left:
        sys.stderr.write(f"e2e: left behind: {line}\n")
    return result or bool(left)


def _run(programs: Path, images: Path, arguments: Sequence[str]) -> int:
    inside = [sys.executable, "-m", "harness.inside", *arguments]
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *_NAMESPACES, "--", *inside]
    found = {"AURORA_K8S_BIN": str(programs), place.REGISTRY_VARIABLE: str(images)}
    environment = {**os.environ, **found}
    with subprocess.Popen(command, env=environment, cwd=place.REPOSITORY) as running:
        try:
            return running.wait(_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            sys.stderr.write(f"e2e: not done after {_LIMIT_SECONDS} s, ended\n")
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            running.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
