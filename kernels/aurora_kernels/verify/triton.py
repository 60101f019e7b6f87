"""Verification on a GPU, without the probabilities of B × (K + 1) positions in memory.

A program for each position reads its logits once (and again to find a truncation's threshold), and
says what became of the draft there. One for each row then draws the next token at the position
where its draft ends.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from aurora_kernels.placement import check_placement
from aurora_kernels.rejection import Verdict
from aurora_kernels.sampling import SamplingRows
from aurora_kernels.verify.reference import Draws

_TILE = 2048


def verify_logits(
    logits: Tensor,
    drafted: Tensor,
    draft_probs: Tensor | None,
    lengths: Tensor,
    rows: SamplingRows,
    draws: Draws,
    *,
    tile: int = _TILE,
) -> Verdict:
    """As the reference, for every kind of row: greedy, with a seed, or drawn by uniforms."""
    columns = rows.columns
    given = (logits, drafted, draft_probs, lengths, draws.accept, draws.following, draws.noise)
    return Verdict(*_verify(*map(_contiguous, given), *columns, tile))


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


# As an operation of torch's own, so that it runs on tensors without data too.
@torch.library.custom_op("aurora::verify", mutates_args=())
def _verify(
    logits: Tensor,
    drafted: Tensor,
    draft_probs: Tensor | None,
    lengths: Tensor,
    accept: Tensor | None,
    following: Tensor | None,
    noise: Tensor | None,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    noise_row: Tensor,
    tile: int,
) -> tuple[Tensor, Tensor]:
    batch, positions, vocabulary = logits.shape
    # By position: the highest logit, the mass of what is kept, and the order of the lowest that is.
    found = logits.new_empty(batch, positions, 2)
    order = torch.empty(batch, positions, dtype=torch.int64, device=logits.device)
    kept = torch.empty(batch, positions, dtype=torch.int32, device=logits.device)
    said = torch.empty(batch, positions, dtype=torch.int64, device=logits.device)
    accepted, next_token = torch.empty_like(lengths), torch.empty_like(lengths)
    # A kernel takes some pointer even where it reads nothing.
    probs, accept, following, noise = (
        found if each is None else each for each in (draft_probs, accept, following, noise)
    )
    _judge_position[batch, positions](
        *(logits, drafted, probs, lengths, accept, noise, temperature, top_k, top_p, noise_row),
        *(found, order, kept, said, positions, vocabulary),
        TILE=tile,
    )
    _next_token[(batch,)](
        *(logits, probs, lengths, following, temperature, noise_row),
        *(found, order, kept, said, accepted, next_token, positions, vocabulary),
        TILE=tile,
    )
    return accepted, next_token


@_verify.register_fake
def _(
    logits: Tensor, drafted: Tensor, draft_probs: Tensor | None, lengths: Tensor, *others: object
) -> tuple[Tensor, Tensor]:
    tensors = (each for each in others if isinstance(each, Tensor))
    check_placement(logits, drafted, draft_probs, lengths, *tensors)
    return torch.empty_like(lengths), torch.empty_like(lengths)


@triton.jit
def _order(value):
    """Integers [0, 2^32) that ascend as float32 values do."""
    bits = value.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64) + 2147483648


@triton.jit
def _kept_mass(
    logits, temperature, highest, lowest, vocabulary, COUNT: tl.constexpr, TILE: tl.constexpr
):
    """The mass, relative to the highest logit's, of tokens from `lowest` on; or their number."""
    total = tl.zeros((TILE,), tl.float32)
    for first in range(0, vocabulary, TILE):
        at = first + tl.arange(0, TILE)
        logit = tl.load(logits + at, mask=at < vocabulary, other=float("-inf")) / temperature
        is_kept = (_order(logit) >= lowest) & (at < vocabulary)
        if COUNT:
            total += tl.where(is_kept, 1.0, 0.0)
        else:
            total += tl.where(is_kept, tl.exp(logit - highest), 0.0)
    return tl.sum(total, axis=0)


@triton.jit
def _lowest_kept(
    logits, temperature, highest, least, wanted, vocabulary, COUNT: tl.constexpr, TILE: tl.constexpr
):
    """The order of the highest logit from which on there is at least the wanted mass or number.

    At least `least`. Found bit by bit, so that ties are kept together and nothing is sorted.
    """
    found = tl.full((), 0, tl.int64)
    bit = tl.full((), 2147483648, tl.int64)
    for _ in range(32):
        candidate = found | bit
        lowest = tl.maximum(candidate, least)
        mass = _kept_mass(logits, temperature, highest, lowest, vocabulary, COUNT, TILE)
        found = tl.where(mass >= wanted, candidate, found)
        bit = bit >> 1
    return tl.maximum(found, least)


@triton.jit
def _best(logits, noise, temperature, lowest, vocabulary, NOISY: tl.constexpr, TILE: tl.constexpr):
    """The token of the highest logit, or of the highest sum with Gumbel noise among the kept."""
    highest = tl.full((TILE,), float("-inf"), tl.float32)
    best = tl.zeros((TILE,), tl.int64)
    for first in range(0, vocabulary, TILE):
        at = first + tl.arange(0, TILE)
        logit = tl.load(logits + at, mask=at < vocabulary, other=float("-inf"))
        if NOISY:
            scaled = logit / temperature
            drawn = tl.load(noise + at, mask=at < vocabulary, other=1.0)
            is_kept = (_order(scaled) >= lowest) & (at < vocabulary)
            logit = tl.where(is_kept, scaled - tl.log(drawn), float("-inf"))
        best = tl.where(logit > highest, at, best)
        highest = tl.maximum(highest, logit)
    most = tl.max(highest, axis=0)
    # A token even where no logit is a number.
    return tl.minimum(tl.min(tl.where(highest == most, best, vocabulary), axis=0), vocabulary - 1)


@triton.jit
def _judge_position(
    logits,
    drafted,
    probs,
    lengths,
    accept,
    noise,
    temperatures,
    top_ks,
    top_ps,
    noise_rows,
    found,
    order,
    kept,
    said,
    positions,
    vocabulary,
    TILE: tl.constexpr,
) -> None:
    """What the target says at a position, and whether it accepts what was drafted there."""
    row, position = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.load(lengths + row)
    place = row * positions + position
    if position <= length:
        logits += place * vocabulary
        temperature = tl.load(temperatures + row)
        noise_row = tl.load(noise_rows + row).to(tl.int64)
        top_k, top_p = tl.load(top_ks + row), tl.load(top_ps + row)
        token = tl.full((), 0, tl.int64)
        if position < length:
            token = tl.load(drafted + row * (positions - 1) + position)
        highest = tl.full((), 0.0, tl.float32)
        mass = tl.full((), 1.0, tl.float32)
        lowest = tl.full((), 0, tl.int64)
        is_kept = token < 0
        if temperature == 0.0:
            best = _best(logits, noise, 1.0, lowest, vocabulary, False, TILE)
            tl.store(said + place, best)
            is_kept = token == best
        else:
            truncates = ((top_k > 0) & (top_k < vocabulary)) | (top_p < 1.0)
            if truncates | (noise_row < 0):
                tops = tl.full((TILE,), float("-inf"), tl.float32)
                sums = tl.zeros((TILE,), tl.float32)
                for first in range(0, vocabulary, TILE):
                    at = first + tl.arange(0, TILE)
                    logit = tl.load(logits + at, mask=at < vocabulary, other=float("-inf"))
                    logit = logit / temperature
                    higher = tl.maximum(tops, logit)
                    base = tl.where(higher == float("-inf"), 0.0, higher)
                    sums = sums * tl.exp(tops - base) + tl.exp(logit - base)
                    tops = higher
                highest = tl.max(tops, axis=0)
                mass = tl.sum(sums * tl.exp(tops - highest), axis=0)
            if (top_k > 0) & (top_k < vocabulary):
                lowest = _lowest_kept(
                    logits, temperature, highest, lowest, top_k, vocabulary, True, TILE
                )
                mass = _kept_mass(logits, temperature, highest, lowest, vocabulary, False, TILE)
            if top_p < 1.0:
                lowest = _lowest_kept(
                    logits, temperature, highest, lowest, top_p * mass, vocabulary, False, TILE
                )
                mass = _kept_mass(logits, temperature, highest, lowest, vocabulary, False, TILE)
            if noise_row >= 0:
                noise += (noise_row * positions + position) * vocabulary
                best = _best(logits, noise, temperature, lowest, vocabulary, True, TILE)
                tl.store(said + place, best)
                is_kept = token == best
            elif position < length:
                place_drafted = row * (positions - 1) + position
                logit = tl.load(logits + token) / temperature
                target = tl.where(_order(logit) >= lowest, tl.exp(logit - highest) / mass, 0.0)
                draft = tl.load(probs + place_drafted * vocabulary + token)
                is_kept = tl.load(accept + place_drafted) * draft < target
        tl.store(found + place * 2, highest)
        tl.store(found + place * 2 + 1, mass)
        tl.store(order + place, lowest)
        tl.store(kept + place, (is_kept & (position < length)).to(tl.int32))


@triton.jit
def _weight(logits, probs, at, temperature, highest, mass, lowest, vocabulary, is_residual):
    """What a tile of tokens is drawn by: the target's probabilities, or their residual."""
    inside = at < vocabulary
    logit = tl.load(logits + at, mask=inside, other=float("-inf")) / temperature
    is_kept = (_order(logit) >= lowest) & inside
    target = tl.where(is_kept, tl.exp(logit - highest) / mass, 0.0)
    rest = target - tl.load(probs + at, mask=inside & (is_residual > 0), other=0.0)
    # Unlike a maximum, keeps what is not a number.
    return tl.where(rest <= 0, 0.0, rest)


@triton.jit
def _total(
    logits, probs, temperature, highest, mass, lowest, vocabulary, is_residual, TILE: tl.constexpr
):
    """The sum of all weights, added up as `_drawn` does."""
    total = tl.full((), 0.0, tl.float32)
    for first in range(0, vocabulary, TILE):
        at = first + tl.arange(0, TILE)
        weight = _weight(
            logits, probs, at, temperature, highest, mass, lowest, vocabulary, is_residual
        )
        total += tl.sum(weight, axis=0)
    return total


@triton.jit
def _drawn(
    logits,
    probs,
    temperature,
    highest,
    mass,
    lowest,
    vocabulary,
    is_residual,
    threshold,
    TILE: tl.constexpr,
):
    """The first token at which the sum of weights exceeds the threshold; never one without weight.

    Where rounding keeps all sums below it, the last one with weight.
    """
    before = tl.full((), 0.0, tl.float32)
    drawn = tl.full((), 0, tl.int64) + vocabulary
    last = tl.full((), 0, tl.int64)
    for first in range(0, vocabulary, TILE):
        at = first + tl.arange(0, TILE)
        weight = _weight(
            logits, probs, at, temperature, highest, mass, lowest, vocabulary, is_residual
        )
        above = (before + tl.cumsum(weight, axis=0) > threshold) & (weight > 0)
        drawn = tl.minimum(drawn, tl.min(tl.where(above, at, vocabulary), axis=0))
        last = tl.maximum(last, tl.max(tl.where(weight > 0, at, 0), axis=0))
        before += tl.sum(weight, axis=0)
    return tl.where(drawn < vocabulary, drawn, last)


@triton.jit
def _next_token(
    logits,
    probs,
    lengths,
    following,
    temperatures,
    noise_rows,
    found,
    order,
    kept,
    said,
    accepted,
    next_token,
    positions,
    vocabulary,
    TILE: tl.constexpr,
) -> None:
    """A row's accepted length, and the token that follows."""
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row)
    place = row * positions
    count = tl.full((), 0, tl.int64)
    for position in range(positions - 1):
        # What is beyond the length was not judged.
        is_counted = (position == count) & (position < length)
        count += tl.where(tl.load(kept + place + position, mask=is_counted, other=0) > 0, 1, 0)
    tl.store(accepted + row, count)
    place += count
    temperature = tl.load(temperatures + row)
    if (temperature == 0.0) | (tl.load(noise_rows + row) >= 0):
        tl.store(next_token + row, tl.load(said + place))
    else:
        logits += place * vocabulary
        highest, mass = tl.load(found + place * 2), tl.load(found + place * 2 + 1)
        lowest = tl.load(order + place)
        uniform = tl.load(following + place)
        is_residual = tl.where(count < length, 1, 0)
        # Behind the last position if every draft was accepted: then nothing is read there.
        probs += (row * (positions - 1) + count) * vocabulary
        total = _total(
            logits, probs, temperature, highest, mass, lowest, vocabulary, is_residual, TILE
        )
        has_mass = tl.where(total > 0, 1, 0)
        if is_residual > has_mass:
            # Of the target itself.
            total = _total(
                logits, probs, temperature, highest, mass, lowest, vocabulary, has_mass, TILE
            )
        is_residual = tl.minimum(is_residual, has_mass)
        token = _drawn(
            logits,
            probs,
            temperature,
            highest,
            mass,
            lowest,
            vocabulary,
            is_residual,
            uniform * total,
            TILE,
        )
        tl.store(next_token + row, token)
