"""A GPU, under CUDA or ROCm: torch calls both cuda."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aurora_model.decoder import Decoder
from aurora_model.device import on_host


class Cuda:
    """Runs models as they were loaded."""

    def __init__(self, name: str, description: str) -> None:
        """`name`: torch's, with the index."""
        self.name = name
        self.description = description

    def tune_target(self, decoder: Decoder) -> None:
        """Nothing to do: vendors' kernels are fast as they are."""

    def tune_draft(self, draft: nn.Module) -> None:
        """Nothing to do."""

    def prefilling(self, tokens: int) -> AbstractContextManager[None]:
        return nullcontext()

    def free_bytes(self, percent: int) -> int:
        free, total = torch.cuda.mem_get_info(self.name)
        return total * percent // 100 - (total - free)

    def on_host(self, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
        return on_host(tensors)

    def timed(self) -> Callable[[], Callable[[], float]]:
        """Between two events of the current stream."""
        started, ended = _event(), _event()
        started.record()

        def end() -> Callable[[], float]:
            ended.record()

            def seconds() -> float:
                ended.synchronize()
                return float(started.elapsed_time(ended)) / 1000

            return seconds

        return end

    def draft_dtype(self, target: torch.dtype) -> torch.dtype:
        return target


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch gives none
