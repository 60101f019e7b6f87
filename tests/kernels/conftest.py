"""Where kernels run: compiled on a CUDA device, and in Triton's interpreter without one.

The tests' own conftest sets the interpreter up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch

INTERPRETED = not torch.cuda.is_available()


@pytest.fixture(params=["interpreter", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    """The device whose tensors a test gives to kernels."""
    pytest.importorskip("triton", reason="Triton is not made for this platform")
    if request.param == "cuda" and INTERPRETED:
        pytest.skip("needs a CUDA device")
    if request.param == "interpreter" and not INTERPRETED:
        pytest.skip("kernels are compiled for the CUDA device")
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture
def poisoned(monkeypatch) -> Callable[[], AbstractContextManager[None]]:
    """Fills memory that a kernel was to write with NaN, or the largest integer."""
    # What cuBLAS needs in order to be deterministic.
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    @contextmanager
    def poison() -> Iterator[None]:
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(1).isnan()
            yield
        finally:
            torch.use_deterministic_algorithms(False)

    return poison
