"""An EAGLE-3 head on recorded tokens as it drafts: several tokens ahead from every position.

A proposal that begins after position a sees the target's states up to a, and for what it drafted
itself its own. Hence the attention mask: a token of a proposal attends to the positions up to a,
and to the tokens before it in the same proposal. The drafted tokens are the recorded ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurora_model.decoder import Attend, packed_attend
from aurora_model.device import on_host
from aurora_model.draft.kind import PackedTokens, Predictions


class Step(Protocol):
    """From the states of some positions to those of the next: Eagle3Draft.forward."""

    def __call__(
        self, tokens: Tensor, states: Tensor, positions: Tensor, attend: Attend
    ) -> Tensor: ...


def unrolled_states(head: Step, batch: PackedTokens, states: Tensor, steps: int) -> Predictions:
    """The states that predict each of the batch's rows, as the first to the last of `steps`.

    states [1, N, hidden]: the projected ones of the target. A row has fewer predictions near the
    beginning of its sequence, and none as its first token.
    """
    tokens, positions = batch.tokens[0], batch.positions[0]

    def placed(index: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(index).to(tokens.device)

    # What is computed follows from the rows alone: the host lays it out before the device begins.
    number = np.full(len(tokens), -1)
    (batch_rows,) = on_host((batch.rows,))
    number[batch_rows] = np.arange(len(batch_rows))
    needed = _needed(number >= 0, batch.lengths, steps)
    begins = needed[0].nonzero()[0]
    attention = _Attention(batch.lengths, placed)
    state = states[0, placed(begins)]
    features, rows, ahead = [], [], []
    for step in range(steps):
        if step > 0:
            kept = needed[step][begins].nonzero()[0]
            begins, state = begins[kept], state[placed(kept)]
            attention.keep(kept)
        following = begins + 1 + step
        state = head(
            tokens[None, placed(following)],
            state[None],
            positions[None, placed(begins)] + step,
            attention,
        )[0]
        predicts = (number[following] >= 0).nonzero()[0]
        features.append(state[placed(predicts)])
        rows.append(number[following[predicts]])
        ahead.append(np.full_like(rows[-1], step))
    all_rows = np.concatenate(rows)
    order = all_rows.argsort(kind="stable")
    return Predictions(
        torch.cat(features)[placed(order)],
        placed(all_rows[order]),
        placed(np.concatenate(ahead)[order]),
    )


def _needed(
    is_row: NDArray[np.bool_], lengths: Sequence[int], steps: int
) -> list[NDArray[np.bool_]]:
    """For each step whether the proposal that begins after a position is computed so far, [N].

    The first step is computed for all: their keys are what later positions attend to.
    """
    # How many positions of the same sequence follow.
    left = np.concatenate([np.arange(length - 1, -1, -1) for length in lengths])
    needed: list[NDArray[np.bool_]] = []
    further = np.zeros_like(is_row)
    for step in range(steps - 1, 0, -1):
        predicts = np.roll(is_row, -1 - step)
        further = (left > step) & (predicts | further)
        needed.append(further)
    return [left > 0, *reversed(needed)]


class _Attention:
    """Attention of one step of all proposals, which keeps the keys and values of the steps so far.

    The first step's proposals begin after every position but the last of each sequence.
    """

    def __init__(
        self, lengths: Sequence[int], placed: Callable[[NDArray[np.int64]], Tensor]
    ) -> None:
        """`placed`: puts an index where the keys are."""
        self._lengths = [length - 1 for length in lengths]
        self._placed = placed
        self._sequence = np.repeat(np.arange(len(lengths)), self._lengths)
        # How many keys of its sequence's first step a proposal sees.
        self._visible = np.concatenate([np.arange(1, length) for length in lengths])
        self._first: tuple[Tensor, Tensor] | None = None
        self._own: list[tuple[Tensor, Tensor]] = []

    def keep(self, kept: NDArray[np.int64]) -> None:
        """Goes on with the proposals of the last step at these ascending places."""
        self._sequence, self._visible = self._sequence[kept], self._visible[kept]
        index = self._placed(kept)
        self._own = [(key[:, :, index], value[:, :, index]) for key, value in self._own]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if self._first is None:
            self._first = key, value
            return packed_attend(self._lengths)(layer, query, key, value)
        self._own.append((key, value))
        first_key, first_value = (
            torch.split(each[0], self._lengths, dim=1) for each in self._first
        )
        counts = np.bincount(self._sequence, minlength=len(self._lengths)).tolist()
        kv_heads, width = key.shape[1], key.shape[-1]
        grouped = query[0].reshape(kv_heads, -1, *query.shape[2:]) * width**-0.5  # [Hkv, G, n, D]
        own_keys = torch.stack([each[0] for each, _ in self._own], dim=2)  # [Hkv, n, steps, D]
        own_values = torch.stack([each[0] for _, each in self._own], dim=2)
        own_scores = torch.einsum("hgnd,hnsd->hgns", grouped, own_keys)
        parts = []
        for number, (queries, own, visible) in enumerate(
            zip(
                torch.split(grouped, counts, dim=2),
                torch.split(own_scores, counts, dim=2),
                torch.split(self._placed(self._visible), counts),
                strict=True,
            )
        ):
            keys = first_key[number][:, None]  # [Hkv, 1, L, D]
            hidden = torch.arange(keys.shape[2], device=key.device) >= visible[:, None]
            scores = (queries @ keys.transpose(-1, -2)).masked_fill(hidden, -torch.inf)
            weights = torch.cat((scores, own), dim=-1).softmax(dim=-1)
            seen, itself = torch.split(weights, [keys.shape[2], own.shape[-1]], dim=-1)
            parts.append((seen @ first_value[number][:, None], itself))
        context = torch.cat([each for each, _ in parts], dim=2)
        itself = torch.cat([each for _, each in parts], dim=2)
        context = context + torch.einsum("hgns,hnsd->hgnd", itself, own_values)
        return context.flatten(0, 1)[None]
