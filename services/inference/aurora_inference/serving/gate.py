"""What a process serves, and whether it is serving now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from aurora_common.errors import UnavailableError
from aurora_inference.contract import EngineControl
from aurora_inference.serving.metrics import TrajectoryCounts

if TYPE_CHECKING:
    from aurora_inference.serving.text_service import TextService


class Backend(Protocol):
    """An engine and what it serves; `trajectories` is None if none are recorded."""

    @property
    def engine(self) -> EngineControl: ...
    @property
    def model_name(self) -> str: ...
    @property
    def max_context_tokens(self) -> int: ...
    @property
    def target_digest(self) -> str: ...
    @property
    def tokenizer_digest(self) -> str: ...
    @property
    def trajectories(self) -> TrajectoryCounts | None: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """The Backend behind our own fronts."""

    text: TextService
    engine: EngineControl
    target_digest: str
    tokenizer_digest: str
    trajectories: TrajectoryCounts | None

    @property
    def model_name(self) -> str:
        return self.text.model.name

    @property
    def max_context_tokens(self) -> int:
        return self.text.model.max_context_tokens


@dataclass(frozen=True, slots=True)
class Problem:
    """`reason` is one CamelCase word, as in a Kubernetes condition."""

    reason: str
    message: str


def lasting_problems(backend: Backend) -> tuple[Problem, ...]:
    """What lasts and a person should know; nothing of it stops requests from being served."""
    found = []
    if backend.trajectories is not None and (message := backend.trajectories.problem):
        found.append(Problem("NothingRecorded", message))
    if message := backend.engine.problem():
        found.append(Problem("EngineFailing", message))
    return tuple(found)


B = TypeVar("B", bound=Backend)


class Gate(Generic[B]):
    """Admits requests from `open` to `close`."""

    def __init__(self) -> None:
        # Says what it waits for until it opens.
        self.awaits: Callable[[], str] = lambda: "the model is still loading"
        self._serving: B | None = None
        self._closed = False

    def open(self, serving: B) -> None:
        self._serving = serving

    def close(self) -> None:
        self._closed = True

    @property
    def is_open(self) -> bool:
        return self._serving is not None and not self._closed

    @property
    def serving(self) -> B:
        """Raises UnavailableError before `open` and after `close`."""
        if self._closed:
            raise UnavailableError("the server is stopping and takes no new requests")
        if self._serving is None:
            raise UnavailableError(f"{self.awaits()}; try again in a few seconds")
        return self._serving
