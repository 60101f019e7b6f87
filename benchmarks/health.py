"""Asks a server's `/health` in a process of its own, which nothing else holds up."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import httpx2

_PERIOD_SECONDS = 0.05
_TIMEOUT_SECONDS = 60.0


@contextmanager
def watched(url: str) -> Iterator[list[float]]:
    """How long each answer took, in seconds, filled in at the end of the block.

    Raises RuntimeError if one was not 200.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_ask, args=(url, theirs), daemon=True)
    process.start()
    ours.recv()
    seconds: list[float] = []
    try:
        yield seconds
    finally:
        ours.send(None)
        found = ours.recv()
        process.join()
    if isinstance(found, str):
        raise RuntimeError(found)
    seconds += found


def _ask(url: str, parent: Connection) -> None:
    seconds: list[float] = []
    problem = ""
    with httpx2.Client(timeout=_TIMEOUT_SECONDS) as client:
        client.get(url)
        parent.send(None)
        while not parent.poll(_PERIOD_SECONDS):
            started = time.perf_counter()
            answer = client.get(url)
            seconds.append(time.perf_counter() - started)
            if answer.status_code != httpx2.codes.OK:
                problem = f"{url} answered {answer.status_code}: {answer.text[:200]}"
    parent.recv()
    parent.send(problem or seconds)
