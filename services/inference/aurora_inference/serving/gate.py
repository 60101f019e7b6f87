"""What a process serves once its model is loaded, and whether it does at the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from aurora_common.errors import UnavailableError
from aurora_inference.contract import Arm, DraftReference, EngineControl
from aurora_inference.serving.metrics import Snapshot
from aurora_inference.serving.text_service import TextService


class TrajectoryCounts(Protocol):
    """What became of the trajectories; `trajectory.sender.TrajectorySender` is the real one."""

    @property
    def sent(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def queued(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts behind the fronts; `trajectories` None: none are kept."""

    text: TextService
    engine: EngineControl
    target_digest: str
    tokenizer_digest: str
    trajectories: TrajectoryCounts | None

    async def snapshot(self) -> Snapshot:
        """Everything that the metrics show, at one moment."""
        status = await self.engine.status()
        held: tuple[tuple[Arm, DraftReference | None], ...] = (
            ("stable", status.stable),
            ("candidate", status.candidate),
        )
        trajectories = self.trajectories
        return Snapshot(
            model_name=self.text.model.name,
            counters=await self.engine.counters(),
            drafts={arm: (draft.name, draft.digest) for arm, draft in held if draft is not None},
            speculation_length=status.speculation_length,
            trajectories_sent=trajectories.sent if trajectories else 0,
            trajectories_dropped=trajectories.dropped if trajectories else 0,
            trajectories_queued=trajectories.queued if trajectories else 0,
        )


class Gate:
    """Lets requests through from `open` to `close`."""

    def __init__(self) -> None:
        self._serving: Serving | None = None
        self._closed = False

    def open(self, serving: Serving) -> None:
        self._serving = serving

    def close(self) -> None:
        self._closed = True

    @property
    def serving(self) -> Serving:
        """Raises UnavailableError where no request is served now."""
        if self._closed:
            raise UnavailableError("the server is stopping and takes no new requests")
        if self._serving is None:
            raise UnavailableError("the model is still loading; try again in a few seconds")
        return self._serving
