"""Finds and removes what a run could leave behind on the machine.

As a program, `python leftover.py`, it waits until its standard input ends, which it does when the
process at the other end exits in whatever way, and then removes that run's cgroups.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

CGROUP_VARIABLE = "AURORA_NODE_CGROUP"
_PREFIX = "aurora-e2e-"
_CGROUPS = Path("/sys/fs/cgroup")
_REMOVE_SECONDS = 30.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The machine's state that a run must not change, one line each."""

    lines: frozenset[str]


def snapshot() -> Snapshot:
    """Mounts, links, network namespaces, packet filter rules, and cgroups of earlier runs."""
    mounts = Path("/proc/mounts").read_text().splitlines()
    links = [path.name for path in Path("/sys/class/net").iterdir()]
    rules = subprocess.run(
        ["iptables-save"], capture_output=True, text=True, timeout=30, check=True
    )
    return Snapshot(
        frozenset(
            (
                *(f"mount {line}" for line in mounts),
                *(f"link {name}" for name in links),
                *(f"rule {line}" for line in rules.stdout.splitlines() if line[:1] in (":", "-")),
                *(f"cgroup {path}" for path in _ended_cgroups()),
            )
        )
    )


def description(before: Snapshot, after: Snapshot) -> list[str]:
    """The lines of `after` that are not in `before`, packet counters aside."""
    known = {line.partition("[")[0] for line in before.lines}
    return sorted(line for line in after.lines if line.partition("[")[0] not in known)


def remove() -> None:
    """Removes the cgroups of ended runs, killing their processes."""
    for cgroup in _ended_cgroups():
        _remove(cgroup)


@contextmanager
def guardian() -> Iterator[None]:
    """Names this run's cgroup, and has it removed when this process or the block ends."""
    os.environ[CGROUP_VARIABLE] = f"{_PREFIX}{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-ISs", __file__, str(os.getpid())],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        yield
        process.communicate(timeout=2 * _REMOVE_SECONDS)


def hierarchies() -> list[Path]:
    """The folders of cgroups: one for each controller, or one in all."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    return [path for path in _CGROUPS.iterdir() if path.is_dir() and not path.is_symlink()]


def _ended_cgroups() -> list[Path]:
    found = [path for root in hierarchies() for path in root.glob(f"{_PREFIX}*")]
    return [path for path in found if not Path("/proc", path.name.removeprefix(_PREFIX)).exists()]


def _remove(cgroup: Path) -> None:
    deadline = time.monotonic() + _REMOVE_SECONDS
    while cgroup.exists() and time.monotonic() < deadline:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            _end_members(Path(folder))
            with suppress(OSError):
                Path(folder).rmdir()
        if cgroup.exists():
            time.sleep(_POLL_SECONDS)


def _end_members(cgroup: Path) -> None:
    """Kills the processes of a cgroup, thawing it first: a frozen process does not die."""
    with suppress(OSError):
        (cgroup / "freezer.state").write_text("THAWED")
    with suppress(OSError):
        for pid in (cgroup / "cgroup.procs").read_text().split():
            os.kill(int(pid), 9)


def _main(owner: str) -> None:
    sys.stdin.buffer.read()
    for root in hierarchies():
        _remove(root / f"{_PREFIX}{owner}")


if __name__ == "__main__":
    _main(sys.argv[1])
