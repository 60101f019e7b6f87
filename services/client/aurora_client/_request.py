"""The request of `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Required, TypedDict

from aurora_client._errors import BadRequestError

_UINT32 = (1 << 32) - 1
_UINT64 = (1 << 64) - 1


class GenerateOptions(TypedDict, total=False):
    """The keyword arguments of `generate`; GenerateRequest has their meanings and defaults."""

    max_tokens: Required[int]
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: str | Sequence[str]
    ignore_eos: bool
    tenant: str
    domain: str
    no_train: bool
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """A prompt, as text or as token ids, and how to continue it.

    `temperature` 0 is greedy; `top_p` 1 and `top_k` 0 are off. A `seed` gives the same text each
    time, whatever the draft and the load; None is random. `stop`: strings that end the completion
    and are not part of it. `tenant` and `domain` label the recorded trajectory; `no_train` records
    none. `model` empty: the served model.
    Raises BadRequestError for a value that no server allows.
    """

    prompt: str | Sequence[int]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: str | Sequence[str] = ()
    ignore_eos: bool = False
    tenant: str = ""
    domain: str = ""
    no_train: bool = False
    model: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            object.__setattr__(self, "prompt", tuple(self.prompt))
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        object.__setattr__(self, "stop", stop)
        problems = _problems(self)
        if problems:
            raise BadRequestError("; ".join(problems))


def _problems(request: GenerateRequest) -> list[str]:
    problems = []
    if not 1 <= request.max_tokens <= _UINT32:
        problems.append(f"max_tokens must be at least 1, got {request.max_tokens}")
    if not 0 <= request.temperature < float("inf"):
        problems.append(f"temperature must be at least 0, got {request.temperature}")
    if not 0 < request.top_p <= 1:
        problems.append(f"top_p must be above 0 and at most 1, got {request.top_p}")
    if not 0 <= request.top_k <= _UINT32:
        problems.append(f"top_k must be at least 0, got {request.top_k}")
    if request.seed is not None and not 0 <= request.seed <= _UINT64:
        problems.append(f"seed must be an unsigned 64-bit number, got {request.seed}")
    if not isinstance(request.prompt, str):
        wrong = [token for token in request.prompt if not 0 <= token <= _UINT32]
        if wrong:
            problems.append(f"token ids must be unsigned 32-bit numbers, got {wrong[0]}")
    if "" in request.stop:
        problems.append("stop must not contain an empty string")
    return problems
