"""A long-running program of the node, and waiting for it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness import place
from support.tethered import end, tethered

_POLL_SECONDS = 0.1


class Program:
    """Runs until the node's end and logs into the logs' folder."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._log = place.LOGS / f"{name}.log"
        self._process: subprocess.Popen[bytes] = tethered(
            command, log=self._log, environment=environment
        )

    def check(self) -> None:
        """Raises AssertionError, with the log's end, if the program has exited."""
        if self._process.poll() is not None:
            text = self._log.read_text(errors="replace")[-4000:]
            raise AssertionError(f"{self._name} ended with {self._process.returncode}:\n{text}")

    def await_that(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Waits for a condition; AssertionError if the program exits or time is up."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.check()
            assert time.monotonic() < deadline, f"{self._name}: not within {seconds} s: {what}"
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        end(self._process)
