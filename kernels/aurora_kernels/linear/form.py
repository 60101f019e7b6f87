"""The available implementations of a linear layer.

A form packs a weight once and returns a function of the activations. Every form computes
`x @ weight.T + bias`; the others are tested against `reference`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Apply = Callable[[Tensor], Tensor]
Pack = Callable[[Tensor, Tensor | None], Apply]


@dataclass(frozen=True, slots=True)
class Form:
    """One way to compute a linear layer.

    `pack(weight [out, in], bias [out] or None)` returns `apply(x [..., in]) -> [..., out]`, x in
    the weight's dtype. It raises RuntimeError if the processor does not support it. `lossy`: the
    weights are rounded below their original precision.
    """

    name: str
    pack: Pack
    lossy: bool
    dtypes: frozenset[torch.dtype]


def reference(weight: Tensor, bias: Tensor | None) -> Apply:
    """Plain `F.linear`."""

    def apply(x: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    return apply


def _onednn(weight: Tensor, bias: Tensor | None) -> Apply:
    """oneDNN with the weight reordered once into its blocked layout."""
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
    multiply = torch.ops.mkldnn._linear_pointwise.default

    def apply(x: Tensor) -> Tensor:
        return multiply(x, packed, bias, "none", [], "")  # type: ignore[no-any-return]

    return apply


def _fbgemm_fp16(weight: Tensor, bias: Tensor | None) -> Apply:
    """FBGEMM with float16 weights and float32 activations and sums."""
    packed = torch.ops.quantized.linear_prepack_fp16(weight, bias)
    multiply = torch.ops.quantized.linear_dynamic_fp16.default

    def apply(x: Tensor) -> Tensor:
        return multiply(x, packed)  # type: ignore[no-any-return]

    return apply


def _fbgemm_int8(weight: Tensor, bias: Tensor | None) -> Apply:
    """FBGEMM with int8 weights (a scale for each output) and activations quantised on the fly."""
    scales = (weight.abs().amax(dim=1).double() / 127).clamp_min(1e-12)
    zeros = torch.zeros_like(scales, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates eager-mode quantisation
        quantised = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(quantised, bias)
    multiply = torch.ops.quantized.linear_dynamic.default

    def apply(x: Tensor) -> Tensor:
        # reduce_range: without it, AVX2's 16-bit sums saturate.
        return multiply(x, packed, True)  # type: ignore[no-any-return]

    return apply


_FLOAT32 = frozenset({torch.float32})

FORMS: tuple[Form, ...] = (
    Form("plain", reference, lossy=False, dtypes=frozenset({torch.float32, torch.bfloat16})),
    Form("onednn", _onednn, lossy=False, dtypes=frozenset({torch.float32, torch.bfloat16})),
    Form("fbgemm-fp16", _fbgemm_fp16, lossy=True, dtypes=_FLOAT32),
    Form("fbgemm-int8", _fbgemm_int8, lossy=True, dtypes=_FLOAT32),
)
