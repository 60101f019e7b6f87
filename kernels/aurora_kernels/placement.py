"""Where the tensors of a kernel's operation are."""

from __future__ import annotations

from torch import Tensor


def check_placement(*tensors: Tensor | None) -> None:
    """Asserts that all are on one device, which a kernel that gets addresses cannot see."""
    devices = {tensor.device for tensor in tensors if tensor is not None}
    assert len(devices) == 1, f"tensors on {sorted(map(str, devices))}: allowed is one device"
