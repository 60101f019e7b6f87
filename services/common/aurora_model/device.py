"""Which device models run on, and what it says when it cannot."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from aurora_common.errors import (
    AuroraError,
    DeviceLostError,
    InvalidInputError,
    UnavailableError,
)

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")


class OutOfMemoryError(UnavailableError):
    """A device lacks the memory for what was asked for."""


def usable_device(name: str) -> torch.device:
    """The device that `--device` names: auto, cpu, cuda or cuda:N, which is a ROCm build's GPU too.

    auto: cuda if it is usable, else the CPU, logging why if torch is built for GPUs. Raises
    InvalidInputError if torch is built for CPUs, the index is out of range or the GPU too old,
    and UnavailableError if there is no driver, it is too old or the GPU does not answer.
    """
    if name == "cpu":
        return CPU
    if name != "auto":
        return _usable_gpu(name)
    if not _is_built_for_gpus():
        return CPU
    try:
        return _usable_gpu("cuda")
    except AuroraError as error:
        logger.info("no usable GPU; running on the CPU", extra={"fields": {"reason": str(error)}})
        return CPU


def device_description(device: torch.device) -> str:
    """As people name it: cpu, or cuda:0 with the GPU's product name."""
    if device.type == "cpu":
        return "cpu"
    return f"{device} ({torch.cuda.get_device_name(device)})"


def on_host(tensors: Sequence[Tensor]) -> list[NDArray[Any]]:
    """Waits for tensors of one device; returns their content, in memory that they may share."""
    if tensors[0].device.type == "cpu":
        return [tensor.numpy() for tensor in tensors]
    # Into pinned memory, and one wait for all of them.
    copies = [tensor.to("cpu", non_blocking=True) for tensor in tensors]
    torch.cuda.current_stream(tensors[0].device).synchronize()
    return [copy.numpy() for copy in copies]


@contextmanager
def memory_for(purpose: str, size_bytes: int | None = None) -> Iterator[None]:
    """Raises OutOfMemoryError saying what the memory was for if a device has too little."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = "" if size_bytes is None else f" of {size_bytes / 2**30:.2f} GiB"
        raise OutOfMemoryError(
            f"out of device memory for {purpose}{asked}: {_first_line(error)}"
        ) from error


@contextmanager
def device_errors() -> Iterator[None]:
    """Raises DeviceLostError naming the cause after an error that breaks a GPU's context."""
    try:
        yield
    except torch.AcceleratorError as error:
        raise DeviceLostError(f"the GPU is lost to this process: {_first_line(error)}") from error


def _is_built_for_gpus() -> bool:
    return torch.version.cuda is not None or torch.version.hip is not None


def _usable_gpu(name: str) -> torch.device:
    if not _is_built_for_gpus():
        raise InvalidInputError(
            f"--device is {name}: torch {torch.__version__} is built for CPUs; allowed is cpu, or "
            "an image with CUDA"
        )
    try:
        # Says whether there is no driver or one too old for this build.
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch gives it no types
    except RuntimeError as error:
        raise UnavailableError(f"--device is {name}: {_first_line(error)}") from error
    count = torch.cuda.device_count()
    device = torch.device("cuda", torch.device(name).index or 0)
    if device.index >= count:
        raise InvalidInputError(
            f"--device is {name}: this process sees {count} of them; allowed is cuda:0 to "
            f"cuda:{count - 1}"
        )
    try:
        # Fails for a GPU that this build has no kernels for, and for one that does not answer.
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:
        problem = f"--device is {name}: the GPU cannot be used: {_first_line(error)}"
        if "no kernel image" in str(error):
            raise InvalidInputError(problem) from error
        raise UnavailableError(problem) from error
    return device


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
