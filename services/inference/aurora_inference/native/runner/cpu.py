"""Threads and packed linear layers of a CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from aurora_kernels.linear import Calibration, decode_threads, pack_linears
from aurora_model.decoder import Decoder

# Activation rows of a decode step: one row alone, a row with its drafts, a batch with theirs.
_DECODE_ROWS = (1, 6, 7, 24)
# Activation rows of a draft step: one row, its first step, a batch.
_DRAFT_ROWS = (1, 2, 8)
# A longer piece of a prompt keeps all threads busy.
_MANY_TOKENS = 64


class Cpu:
    """Decodes with as many threads as suit the target, prefills with all."""

    name = description = "cpu"

    def __init__(self) -> None:
        self.decode_threads = self._all_threads = torch.get_num_threads()
        self.target_calibration = Calibration(_DECODE_ROWS, lossy=False, batch_invariant=True)
        self._draft_calibration = Calibration(_DRAFT_ROWS, lossy=True)

    def tune_target(self, decoder: Decoder) -> None:
        self.decode_threads = decode_threads(decoder, _DECODE_ROWS)
        torch.set_num_threads(self.decode_threads)
        pack_linears(decoder, self.target_calibration)

    def tune_draft(self, draft: nn.Module) -> None:
        pack_linears(draft, self._draft_calibration)

    @contextmanager
    def prefilling(self, tokens: int) -> Iterator[None]:
        if tokens > _MANY_TOKENS:
            torch.set_num_threads(self._all_threads)
        try:
            yield
        finally:
            torch.set_num_threads(self.decode_threads)

    def free_bytes(self, percent: int) -> None:
        return None

    def on_host(self, tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
        return [tensor.numpy() for tensor in tensors]

    def timed(self) -> Callable[[], Callable[[], float]]:
        started = time.perf_counter()

        def end() -> Callable[[], float]:
            seconds = time.perf_counter() - started
            return lambda: seconds

        return end

    def draft_dtype(self, target: torch.dtype) -> torch.dtype:
        # `tune_draft` looks for a faster form.
        return torch.float32
