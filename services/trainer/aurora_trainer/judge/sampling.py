"""A request's sampling parameters, and the target's distribution under them from a record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from aurora.buffer.v1 import buffer_pb2
from aurora_trainer.data.record import MalformedRecordError
from aurora_trainer.data.sample import Sample


@dataclass(frozen=True, slots=True)
class Sampling:
    """As an engine applies them: temperature, then top-k, then top-p.

    temperature 0: the most probable token; top_k 0: off; top_p 1: off.
    """

    temperature: float
    top_p: float = 1.0
    top_k: int = 0

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0


def sampling_of(record: buffer_pb2.Trajectory) -> Sampling:
    """A record's parameters; raises MalformedRecordError naming one that no engine applies."""
    found = record.sampling
    if not 0 <= found.temperature < math.inf:
        raise MalformedRecordError(f"its temperature is {found.temperature}: allowed is 0 or more")
    if not 0 <= found.top_p <= 1:
        raise MalformedRecordError(f"its top_p is {found.top_p}: allowed is 0 to 1")
    return Sampling(found.temperature, found.top_p, found.top_k)


def target_probs(sample: Sample, sampling: Sampling, vocab_size: int) -> NDArray[np.float64]:
    """The probability with which the target emits each recorded token, [T, k].

    A lower bound, but for the record's float16: the tokens beyond the k recorded ones are known by
    their mass at temperature 1 alone. It is exact if k covers the vocabulary or top_k, or at
    temperature 1 what top_p keeps. `vocab_size`: the target's.
    """
    rows, entries = sample.top_ids.shape
    if sampling.is_greedy:
        most_probable = np.zeros((rows, entries))
        most_probable[:, 0] = 1.0
        return most_probable
    # float16 rounds what is below 6e-8 to 0; a row may even have all its mass in the tail.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # Relative to the most probable token's, so that no temperature makes all of them 0.
        log_probs = sample.log_probs.astype(np.float64)
        weights = np.exp((log_probs - log_probs[:, :1]) / sampling.temperature)
        if 0 < sampling.top_k < entries:
            weights[weights < weights[:, sampling.top_k - 1, None]] = 0.0
        tail = _tail_weights(sample, sampling, vocab_size)
        return np.nan_to_num(_truncated_to_nucleus(weights, tail, sampling.top_p))


class _TailWeights(NamedTuple):
    """Bounds, [T], of what the tokens beyond the recorded ones weigh together."""

    least: NDArray[np.float64]
    most: NDArray[np.float64]


def _tail_weights(sample: Sample, sampling: Sampling, vocab_size: int) -> _TailWeights:
    """In units of the most probable token's weight.

    A power of probabilities with a given sum is extreme where they are equal and where as many as
    possible are as large as they may be, which is the last recorded token's.
    """
    entries = sample.top_ids.shape[1]
    beyond = vocab_size - entries
    kept = min(max(sampling.top_k - entries, 0), beyond) if sampling.top_k else beyond
    if kept == 0:
        nothing = np.zeros(sample.output_count)
        return _TailWeights(nothing, nothing)
    log_probs = sample.log_probs.astype(np.float64)
    mass = sample.tail_mass / np.exp(log_probs[:, 0])
    largest = np.exp(log_probs[:, -1] - log_probs[:, 0])
    power = 1 / sampling.temperature
    concentrated = np.fmin(mass / largest, beyond) * largest**power
    spread = beyond * (mass / beyond) ** power
    return _TailWeights(
        # top_k keeps the heaviest.
        least=np.minimum(concentrated, spread) * kept / beyond,
        most=np.minimum(np.maximum(concentrated, spread), kept * largest**power),
    )


def _truncated_to_nucleus(
    weights: NDArray[np.float64], tail: _TailWeights, top_p: float
) -> NDArray[np.float64]:
    """Probabilities of what top_p keeps for certain, over the weight of all that it may keep."""
    sums = weights.cumsum(axis=1)
    total = sums[:, -1]
    least = _kept(weights, sums, top_p * (total + tail.least))
    most = _kept(weights, sums, top_p * (total + tail.most))
    reaches_tail = total < top_p * (total + tail.most)
    kept_weight = np.where(most, weights, 0.0).sum(axis=1) + np.where(reaches_tail, tail.most, 0.0)
    probs: NDArray[np.float64] = np.where(least, weights, 0.0) / kept_weight[:, None]
    return probs


def _kept(
    weights: NDArray[np.float64], sums: NDArray[np.float64], mass: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """The tokens before which there is less than `mass`, at least the first; ties stay, [T, k]."""
    count = (sums - weights < mass[:, None]).sum(axis=1)
    lowest = np.take_along_axis(weights, np.maximum(count, 1)[:, None] - 1, axis=1)
    kept: NDArray[np.bool_] = weights >= lowest
    return kept
