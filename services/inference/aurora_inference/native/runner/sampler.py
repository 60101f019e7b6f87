"""Draws tokens from logits: greedily, by the noise of a request's seed, or by uniforms."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import numpy as np
import torch
from torch import Tensor

from aurora_inference.native.runner.randomness import Purpose, Randomness
from aurora_kernels.rejection import draw
from aurora_kernels.sampling import SamplingRows
from aurora_kernels.verify import Draws


class Sampler:
    """Draws a batch's tokens at its next output positions, for the target and for a draft alike.

    Which rows are *determined* is said by `SamplingRows`, as `rows`.
    Logits are [B, T, V] float32; `start` is the place of the first of the T positions.
    """

    def __init__(
        self, rows: SamplingRows, random: Rows[Randomness], positions: Rows[int], count: int
    ) -> None:
        """Row i draws with `random[i]` at `count` positions from `positions[i]` on."""
        self.rows = rows
        self._noise: Tensor | None = None  # [S, count, V], of the rows with a seed
        # [B, count, 3] by purpose, 0 where a row is determined; None if all are.
        self.uniforms: Tensor | None = None
        if rows.seeded:
            noise = [random[row].noise(positions[row], count) for row in rows.seeded]
            self._noise = torch.from_numpy(np.array(noise)).to(rows.device)
        if rows.undetermined:
            uniforms = np.zeros((len(random), count, len(Purpose)), np.float32)
            for row in rows.undetermined:
                uniforms[row] = random[row].uniforms(positions[row], count)
            self.uniforms = torch.from_numpy(uniforms).to(rows.device)

    @property
    def coupled(self) -> bool:
        """Whether a row has a seed, whose text must not change with the batch."""
        return self._noise is not None

    def tokens(self, logits: Tensor, start: int = 0) -> Tensor:
        """[B, T] int64: the tokens of a batch whose rows are all determined."""
        return self.rows.tokens(logits, self._noise_at(logits, start))

    def probs(self, logits: Tensor, start: int = 0) -> Tensor:
        """[B, T, V] float32: what each token is drawn from, one-hot where a row is determined."""
        return self.rows.drawn_from(logits, self._noise_at(logits, start))

    def draft(self, logits: Tensor, start: int) -> tuple[Tensor, Tensor | None]:
        """Drafted tokens [B, T], and what they were drawn from; None if all are determined."""
        if self.uniforms is None:
            return self.tokens(logits, start), None
        probs = self.probs(logits, start)
        uniforms = self.uniforms[:, start : start + logits.shape[1], Purpose.DRAFT]
        return draw(probs, uniforms), probs

    def first(self, logits: Tensor) -> Tensor:
        """[1, 1] int64: the first token of a single row, logits [1, 1, V]."""
        if self.uniforms is None:
            return self.tokens(logits)
        return draw(self.probs(logits), self.uniforms[..., Purpose.NEXT])

    @property
    def draws(self) -> Draws:
        """What a step's verification draws with."""
        uniforms = self.uniforms
        if uniforms is None:
            return Draws(None, None, self._noise)
        return Draws(uniforms[:, :-1, Purpose.ACCEPT], uniforms[..., Purpose.NEXT], self._noise)

    def _noise_at(self, logits: Tensor, start: int) -> Tensor | None:
        """[S, T, V]: the noise of the rows with a seed at the logits' positions."""
        noise = self._noise
        return None if noise is None else noise[:, start : start + logits.shape[1]]
