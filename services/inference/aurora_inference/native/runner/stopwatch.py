"""How long each draft's work in a step takes, by the device that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from aurora_inference.native.runner.device import Device


class Stopwatch:
    """One step's."""

    def __init__(self, device: Device) -> None:
        self._begin = device.timed
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
