"""How long each draft's work in a step takes, on the device that does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch


class Stopwatch:
    """One step's; on CUDA a part's time is that between two events of the current stream."""

    def __init__(self, device: str) -> None:
        self._begin = _cuda_part if device.startswith("cuda") else _host_part
        self._parts: dict[str, list[Callable[[], float]]] = {}

    @contextmanager
    def timing(self, digest: str) -> Iterator[None]:
        """What the block takes counts for a draft, unless it raises."""
        end = self._begin()
        yield
        self._parts.setdefault(digest, []).append(end())

    def seconds(self) -> Mapping[str, float]:
        """Of each draft, all its parts; waits for a device that is not done."""
        return {digest: sum(part() for part in parts) for digest, parts in self._parts.items()}


def _host_part() -> Callable[[], Callable[[], float]]:
    """Begins a part; what it returns ends it, and gives what reads its seconds."""
    started = time.perf_counter()

    def end() -> Callable[[], float]:
        seconds = time.perf_counter() - started
        return lambda: seconds

    return end


def _cuda_part() -> Callable[[], Callable[[], float]]:
    started, ended = (_event() for _ in range(2))
    started.record()

    def end() -> Callable[[], float]:
        ended.record()

        def seconds() -> float:
            ended.synchronize()
            return float(started.elapsed_time(ended)) / 1000

        return seconds

    return end


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch gives it no types
