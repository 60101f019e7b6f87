"""What a process serves, and whether it is serving now."""

from __future__ import annotations

from dataclasses import dataclass

from aurora_common.errors import UnavailableError
from aurora_inference.contract import EngineControl
from aurora_inference.serving.metrics import TrajectoryCounts
from aurora_inference.serving.text_service import TextService


@dataclass(frozen=True, slots=True)
class Problem:
    """`reason` is one CamelCase word, as in a Kubernetes condition."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts behind the fronts; `trajectories` is None if none are recorded."""

    text: TextService
    engine: EngineControl
    target_digest: str
    tokenizer_digest: str
    trajectories: TrajectoryCounts | None

    def problems(self) -> tuple[Problem, ...]:
        """What lasts and a person should know; nothing of it stops requests from being served."""
        found = []
        if self.trajectories is not None and (message := self.trajectories.problem):
            found.append(Problem("NothingRecorded", message))
        if message := self.engine.problem():
            found.append(Problem("EngineFailing", message))
        return tuple(found)


class Gate:
    """Admits requests from `open` to `close`."""

    def __init__(self) -> None:
        self._serving: Serving | None = None
        self._closed = False

    def open(self, serving: Serving) -> None:
        self._serving = serving

    def close(self) -> None:
        self._closed = True

    @property
    def is_open(self) -> bool:
        return self._serving is not None and not self._closed

    @property
    def serving(self) -> Serving:
        """Raises UnavailableError before `open` and after `close`."""
        if self._closed:
            raise UnavailableError("the server is stopping and takes no new requests")
        if self._serving is None:
            raise UnavailableError("the model is still loading; try again in a few seconds")
        return self._serving
