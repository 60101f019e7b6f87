"""A coordinator in this process, and ranks in processes of their own."""

from __future__ import annotations

import contextlib

import pytest

from aurora_common.port import free_port
from aurora_trainer.ranks.coordinator import Coordinator
from aurora_trainer.ranks.store import hosted_store


class Meeting:
    """Where ranks meet; `add` starts one."""

    def __init__(self, make_rank, until, timeout_seconds):
        self.port = free_port()
        self.store = hosted_store(f"127.0.0.1:{self.port}")
        self.until = until
        self._make_rank = make_rank
        self._timeout_seconds = timeout_seconds
        self.coordinator = None

    def coordinate(self, ranks=2):
        self.coordinator = Coordinator(
            self.store, ranks=ranks, timeout_seconds=self._timeout_seconds
        )
        self.coordinator.start()
        return self.coordinator

    def add(self, *flags):
        rank = self._make_rank(self.port, "--rank-timeout-seconds", self._timeout_seconds, *flags)
        rank.start()
        return rank

    def size(self):
        """How many ranks would share a step now."""
        with self.coordinator.group() as group:
            return 1 if group is None else group.size

    def close(self):
        if self.coordinator is not None:
            self.coordinator.end()


@pytest.fixture
def make_meeting(tmp_path, make_rank, until):
    """make_meeting(timeout_seconds=20): a store that ranks can reach."""
    with contextlib.ExitStack() as stack:

        def make(timeout_seconds=20):
            meeting = Meeting(make_rank, until, timeout_seconds)
            stack.callback(meeting.close)
            return meeting

        yield make
