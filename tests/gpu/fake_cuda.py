"""A GPU that is not there: torch computes shapes, devices and dtypes, and no values.

Under FakeTensorMode an operation on tensors of different devices raises
FakeTensorDeviceMismatchError, and one that needs a value, such as `item`, or a shape that depends
on values, raises DataDependentOutputException or DynamicOutputShapeException.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

DEVICE = torch.device("cuda:0")


class FakeCuda(FakeTensorMode):
    """Knows no tensor's values, not even a constant's, which it would compute on a real device."""

    def may_turn_const(self, t: Tensor) -> bool:
        return False

    def __deepcopy__(self, memo: object) -> FakeCuda:
        # Fake tensors refer to their mode, and their copies are of the same.
        return self


def on_device(module: nn.Module, dtype: torch.dtype, device: torch.device = DEVICE) -> nn.Module:
    """Moves a module in place; `Module.to` cannot move fake tensors to another device."""
    moved: dict[int, nn.Parameter] = {}
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None and id(parameter) not in moved:
                copy = parameter.detach().to(device, dtype)
                moved[id(parameter)] = nn.Parameter(copy, parameter.requires_grad)
            if parameter is not None:
                each._parameters[name] = moved[id(parameter)]
        for name, buffer in each._buffers.items():
            if buffer is not None:
                each._buffers[name] = buffer.to(device)
    return module


def nothing(tensor: Tensor) -> NDArray[Any]:
    """Zeros of a fake tensor's shape, as if they had been copied from the device."""
    assert tensor.device == DEVICE, f"a host copy of a tensor that is on {tensor.device}"
    dtype = np.float32 if tensor.is_floating_point() else np.int64
    return np.zeros(tuple(tensor.shape), dtype)


def backward(loss: Tensor, gradient: Tensor | None = None) -> None:
    """What `Tensor.backward` does, node by node: autograd's own engine asks for a real device."""
    root = loss.grad_fn
    assert root is not None
    pending = _uses(root)
    arrived: dict[Any, dict[int, Tensor]] = {
        root: {0: torch.ones_like(loss) if gradient is None else gradient}
    }
    ready = [root]
    while ready:
        node = ready.pop()
        sent = _passed(node, arrived.pop(node, {}))
        for (following, slot), found in zip(node.next_functions, sent, strict=True):
            if following is None:
                continue
            if found is not None:
                _add(arrived.setdefault(following, {}), slot, found, following)
            pending[following] -= 1
            if pending[following] == 0:
                ready.append(following)


def _uses(root: Any) -> dict[Any, int]:
    """How many edges lead to each node."""
    uses, stack = {root: 0}, [root]
    while stack:
        for following, _ in stack.pop().next_functions:
            if following is None:
                continue
            if following not in uses:
                uses[following] = 0
                stack.append(following)
            uses[following] += 1
    return uses


def _passed(node: Any, gradients: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients of a node's inputs, from those of its outputs; a leaf keeps its own."""
    if hasattr(node, "variable"):
        (gradient,) = gradients.values()
        leaf = node.variable
        leaf.grad = gradient if leaf.grad is None else leaf.grad + gradient
        return ()
    if not gradients:
        return (None,) * len(node.next_functions)
    arguments = [gradients.get(slot) for slot in range(len(node._input_metadata))]
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        found = node.apply(*arguments)
    else:
        found = node(*arguments)
    found = found if isinstance(found, tuple) else (found,)
    # Of a function's arguments, those after its last tensor have no edge.
    return found[: len(node.next_functions)]


def _add(gradients: dict[int, Tensor], slot: int, found: Tensor, node: Any) -> None:
    expected = node._input_metadata[slot]
    assert found.device == expected.device, f"a gradient on {found.device} for {expected.device}"
    found = found.sum_to_size(expected.shape)
    gradients[slot] = gradients[slot] + found if slot in gradients else found
