"""Clients that send completions through a Service without pause and record the results."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Self

_REQUEST_SECONDS = 30.0
_OUTPUT_TOKENS = 48


@dataclass(frozen=True, slots=True)
class Served:
    """One answer: which draft proposed, and how many of its tokens were accepted."""

    draft: str
    drafted_tokens: int
    accepted_tokens: int


def complete(url: str, token: str, model: str, prompt: str) -> Served:
    """One completion on a new connection, which any pod behind the Service may get.

    Raises OSError if it is refused or fails.
    """
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": _OUTPUT_TOKENS,
        "temperature": 0.0,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=_REQUEST_SECONDS) as response:
        answer: dict[str, Any] = json.load(response)["aurora"]
    return Served(answer["draft"], answer["drafted_tokens"], answer["accepted_tokens"])


class Traffic:
    """Streams of requests during the block; `turn_to` changes their prompts."""

    def __init__(self, url: str, token: str, model: str, streams: int = 2) -> None:
        self._target = (url, token, model)
        self._prompts: Iterator[str] = iter(())
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(streams)]
        self.served: list[Served] = []
        self.failures: list[str] = []

    def turn_to(self, prompts: Sequence[str]) -> None:
        """Sends these prompts from now on, repeatedly."""
        with self._lock:
            self._prompts = cycle(prompts)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * _REQUEST_SECONDS)

    def _send(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                prompt = next(self._prompts)
            try:
                served = complete(*self._target, prompt)
            except (OSError, ValueError, KeyError) as error:
                self.failures.append(f"after {len(self.served)} requests: {error!r}")
                # A refusal is immediate: do not retry in a tight loop.
                self._stop.wait(1.0)
            else:
                self.served.append(served)
