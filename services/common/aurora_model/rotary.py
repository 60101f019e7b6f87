"""Rotary position embeddings: the frequencies of each variant, and their rotations."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from aurora_model.config import DecoderConfig
from aurora_model.rope import DefaultRope, LinearRope, Llama3Rope, RopeConfig, YarnRope


class Rotation(NamedTuple):
    """The rotation of one forward pass's queries and keys; both [B, T, 1, head_dim]."""

    cosine: Tensor
    # Its first half is negated, so that rotating is one roll and one multiply-add.
    signed_sine: Tensor

    def apply(self, states: Tensor) -> Tensor:
        """Rotates states [B, T, heads, head_dim] pairwise: component i with i + head_dim / 2."""
        swapped = states.roll(states.shape[-1] // 2, -1)
        return torch.addcmul(states * self.cosine, swapped, self.signed_sine)


class Rotary(nn.Module):
    """Turns positions into rotations.

    Angles are recomputed in each forward pass: a table would save three microseconds, but take half
    a gigabyte for a model with a million positions.
    """

    # [2 * head_dim] float32: factors of a position, for the cosines and then for the sines.
    frequencies: Tensor

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        half, self._scale = rope_frequencies(config.rope, config.head_dim)
        self.register_buffer("frequencies", torch.cat((half, half, -half, half)), persistent=False)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """positions [B, T] int64."""
        angles = positions[:, :, None, None] * self.frequencies
        cosine_angles, sine_angles = angles.chunk(2, dim=-1)
        cosine, signed_sine = cosine_angles.cos(), sine_angles.sin()
        if self._scale != 1.0:
            cosine, signed_sine = cosine * self._scale, signed_sine * self._scale
        return Rotation(cosine.to(dtype), signed_sine.to(dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Moves to the model's device but never to its dtype: bfloat16 cannot represent the angles
        # of positions above 256.
        frequencies = self.frequencies
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # untyped in torch
        self.frequencies = frequencies.to(self.frequencies.device)
        return self


def rope_frequencies(rope: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """Angle per position of each pair, [head_dim / 2] float32, and the factor on cosine and sine.

    Equals transformers' `modeling_rope_utils`, operation for operation.
    """
    exponents = torch.arange(0, head_dim, 2, device="cpu").float() / head_dim
    plain = 1.0 / (rope.rope_theta**exponents)
    match rope:
        case DefaultRope():
            return plain, 1.0
        case LinearRope():
            return plain / rope.factor, 1.0
        case Llama3Rope():
            return _llama3_frequencies(rope, plain), 1.0
        case YarnRope():
            return _yarn_frequencies(rope, plain, head_dim), _yarn_attention_factor(rope)


def _llama3_frequencies(rope: Llama3Rope, plain: Tensor) -> Tensor:
    context = rope.original_max_position_embeddings
    wavelength = 2 * math.pi / plain
    smooth = (context / wavelength - rope.low_freq_factor) / (
        rope.high_freq_factor - rope.low_freq_factor
    )
    scaled = plain / rope.factor
    ramp = (1 - smooth) * scaled + smooth * plain
    ramp = torch.where(wavelength > context / rope.low_freq_factor, scaled, ramp)
    return torch.where(wavelength < context / rope.high_freq_factor, plain, ramp)


def _yarn_frequencies(rope: YarnRope, plain: Tensor, head_dim: int) -> Tensor:
    def dimension(rotations: float) -> float:
        ratio = rope.original_max_position_embeddings / (rotations * 2 * math.pi)
        return head_dim * math.log(ratio) / (2 * math.log(rope.rope_theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    interpolated = ((torch.arange(head_dim // 2, device="cpu").float() - low) / (high - low)).clamp(
        0, 1
    )
    return plain / rope.factor * interpolated + plain * (1 - interpolated)


def _yarn_attention_factor(rope: YarnRope) -> float:
    def scale(weight: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale is not None and rope.mscale_all_dim is not None:
        return scale(rope.mscale) / scale(rope.mscale_all_dim)
    return scale(1.0)
