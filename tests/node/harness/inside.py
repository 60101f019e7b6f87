"""The first process of the node's namespaces: prepares them, runs pytest, and reaps orphans.

Once it ends, the kernel kills all other processes in them, and removes mounts and links.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from harness import place

# The folders of the node's programs that no flag changes.
_SCRATCH = ("/run", "/var/lib", "/var/log")
# A kubelet sets these for the whole machine, unless they are set already.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}


def main() -> int:
    _mount()
    _connect()
    # The steps of a story: after a failed one, the others mean nothing.
    command = [sys.executable, "-m", "pytest", "--exitfirst", str(place.TESTS), *sys.argv[1:]]
    environment = {**os.environ, place.VARIABLE: "1"}
    tests = subprocess.Popen([*command, f"--basetemp={place.FOLDER / 'tests'}"], env=environment)
    # Ctrl-C reaches every process of the terminal: pytest decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        ended, status = os.wait()
        if ended == tests.pid:
            return os.waitstatus_to_exitcode(status)


def _mount() -> None:
    _call("mount", "--make-rshared", "/")
    for folder in _SCRATCH:
        _call("mount", "-t", "tmpfs", "tmpfs", folder)
    place.FOLDER.mkdir()
    for name, value in _KERNEL_SETTINGS.items():
        standin = place.FOLDER / name.replace("/", ".")
        standin.write_text(f"{value}\n")
        _call("mount", "--bind", str(standin), f"/proc/sys/{name}")


def _connect() -> None:
    """A bridge without ports carries the node's address, and the way to all others."""
    _call("ip", "link", "set", "lo", "up")
    _call("ip", "link", "add", place.LINK, "type", "bridge")
    _call("ip", "address", "add", f"{place.ADDRESS}/24", "dev", place.LINK)
    _call("ip", "link", "set", place.LINK, "up")
    _call("ip", "route", "add", "default", "dev", place.LINK)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def _call(*command: str) -> None:
    subprocess.run(command, check=True, timeout=30)


if __name__ == "__main__":
    sys.exit(main())
