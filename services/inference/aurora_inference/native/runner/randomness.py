"""A request's random numbers, which follow from its seed, an output position and a purpose.

They come from the counter-based Philox4x64-10 (Salmon et al.: "Parallel Random Numbers: As Easy as
1, 2, 3", 2011), never from how many were drawn before: batch, load and speculation length have no
part in them.
"""

from __future__ import annotations

import secrets
from enum import IntEnum

import numpy as np
from numpy.random import Generator, Philox
from numpy.typing import NDArray

_SEED_BITS = 64
# The second word of Philox's key, so that uniforms and noise never share a number.
_UNIFORMS, _NOISE = 0, 1
_FIRST_UNIFORMS = 64


class Purpose(IntEnum):
    """What a position's uniforms are for."""

    DRAFT = 0
    ACCEPT = 1
    NEXT = 2


class Randomness:
    """The random numbers of one request for a target of `vocabulary` tokens.

    The seed counts modulo 2^64; None stands for one that nobody knows.
    """

    def __init__(self, seed: int | None, vocabulary: int) -> None:
        known = secrets.randbits(_SEED_BITS) if seed is None else seed
        self._seed = known % (1 << _SEED_BITS)
        self._vocabulary = vocabulary
        # Number 3 * position + purpose of the stream; drawn ahead, as each call costs microseconds.
        self._stream = Generator(_philox(self._seed, _UNIFORMS))
        self._uniforms = np.empty((0, len(Purpose)), np.float32)
        self._noise: dict[int, NDArray[np.float32]] = {}

    def uniforms(self, position: int, count: int) -> NDArray[np.float32]:
        """[count, 3] in [0, 1) by `Purpose`, from output position `position` on."""
        while len(self._uniforms) < position + count:
            shape = (max(len(self._uniforms), _FIRST_UNIFORMS), len(Purpose))
            more = self._stream.random(shape, dtype=np.float32)
            self._uniforms = np.concatenate([self._uniforms, more])
        return self._uniforms[position : position + count]

    def noise(self, position: int, count: int) -> list[NDArray[np.float32]]:
        """Standard exponential noise [V] at each of `count` positions; `position` only grows."""
        # What was drafted in vain is verified again in the next step.
        self._noise = {at: kept for at, kept in self._noise.items() if at >= position}
        wanted = range(position, position + count)
        for at in wanted:
            if at not in self._noise:
                self._noise[at] = self._noise_at(at)
        return [self._noise[at] for at in wanted]

    def _noise_at(self, position: int) -> NDArray[np.float32]:
        source = Generator(_philox(self._seed, _NOISE, position))
        # Drawn in float64, since a float32 draw is 0 too often, and a noise of 0 always wins.
        noise = source.standard_exponential(self._vocabulary).astype(np.float32)
        return np.maximum(noise, np.finfo(np.float32).tiny, out=noise)


def _philox(seed: int, stream: int, position: int = 0) -> Philox:
    """Each position begins 2^64 blocks of numbers after the one before it."""
    return Philox(
        key=np.array([seed, stream], np.uint64), counter=np.array([0, position, 0, 0], np.uint64)
    )
