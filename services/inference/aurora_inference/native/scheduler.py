"""Which requests run: a queue in front of a bounded batch."""

from __future__ import annotations

from collections import deque

from aurora_common.errors import InvalidInputError
from aurora_inference.contract import Request


class Scheduler:
    """Admits requests first come, first served. `EngineWorker` bounds how many may wait."""

    def __init__(self, *, max_batch: int, max_context_tokens: int) -> None:
        self.max_batch = max_batch
        self.max_context_tokens = max_context_tokens
        self._waiting: deque[Request] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, request: Request) -> None:
        """Queues a request; raises InvalidInputError if it can never run."""
        check(request, self.max_context_tokens)
        self._waiting.append(request)

    def next(self, running: int) -> Request | None:
        """The next request to run if the batch has room beside `running` others."""
        if running >= self.max_batch or not self._waiting:
            return None
        return self._waiting.popleft()

    def withdraw(self, request_id: str) -> bool:
        """Removes a request from the queue; False if it is not waiting."""
        for request in self._waiting:
            if request.id == request_id:
                self._waiting.remove(request)
                return True
        return False

    def withdraw_all(self) -> list[Request]:
        """Empties the queue."""
        withdrawn = list(self._waiting)
        self._waiting.clear()
        return withdrawn


def check(request: Request, max_context_tokens: int) -> None:
    """Raises InvalidInputError, naming value and limit, if a request can never run."""
    prompt, wanted, sampling = len(request.prompt_tokens), request.max_tokens, request.sampling
    if prompt == 0:
        raise InvalidInputError("the prompt has no tokens; at least one is needed")
    if wanted < 1:
        raise InvalidInputError(f"max_tokens is {wanted}; it must be at least 1")
    if prompt + wanted > max_context_tokens:
        raise InvalidInputError(
            f"the prompt has {prompt} tokens and max_tokens is {wanted}, together "
            f"{prompt + wanted}; this model's context holds {max_context_tokens}"
        )
    if not 0 <= sampling.temperature <= 100:
        raise InvalidInputError(f"temperature is {sampling.temperature}; allowed are 0 to 100")
    if not 0 < sampling.top_p <= 1:
        raise InvalidInputError(f"top_p is {sampling.top_p}; allowed are values above 0 up to 1")
    if sampling.top_k < 0:
        raise InvalidInputError(f"top_k is {sampling.top_k}; it must be at least 0 (0: off)")
