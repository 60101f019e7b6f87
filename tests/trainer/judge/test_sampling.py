"""The target's distribution under a request's sampling, against one computed from all tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora.buffer.v1 import buffer_pb2
from aurora_trainer.data.record import MalformedRecordError
from aurora_trainer.data.sample import Sample
from aurora_trainer.judge.sampling import Sampling, sampling_of, target_probs

VOCABULARY = 24

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.2, 0.7, 1.0, 1.3, 3.0]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 0.99, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 8, 12, 24, 100]),
)
# Of the logits: from nearly even to one that has nearly everything.
sharpness = st.sampled_from([0.1, 1.0, 3.0, 10.0])
seeds = st.integers(0, 2**32 - 1)


def log_probs_of(seed, scale, rows=5):
    """float64 [T, V] in an order of its own, at temperature 1."""
    logits = scale * np.random.default_rng(seed).normal(size=(rows, VOCABULARY))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def recorded(log_probs, entries):
    """The `entries` most probable tokens, without the rounding of a record."""
    ids = np.argsort(-log_probs, axis=1)
    ordered = np.take_along_axis(log_probs, ids, axis=1)
    # Summed: of a tiny tail, 1 minus the rest leaves rounding errors that a temperature enlarges.
    tail = np.exp(ordered[:, entries:]).sum(axis=1)
    return sample_of(ids[:, :entries], ordered[:, :entries], tail)


def sample_of(ids, log_probs, tail_mass):
    return Sample(
        stream_id="1-0",
        request_id="request",
        domain="a",
        tokens=np.zeros(len(ids) + 1, np.int32),
        top_ids=ids,
        log_probs=log_probs,
        tail_mass=tail_mass,
    )


def processed(probs, sampling):
    """One row of probabilities [V] after temperature, top-k and top-p, as the rules read."""
    if sampling.temperature == 0:
        return np.eye(len(probs))[probs.argmax()]
    weights = probs ** (1 / sampling.temperature)
    if 0 < sampling.top_k < len(probs):
        weights[weights < np.sort(weights)[-sampling.top_k]] = 0
    weights /= weights.sum()
    kept = np.zeros_like(weights)
    mass = 0.0
    for token in np.argsort(-weights):
        if mass >= sampling.top_p and sampling.top_p < 1:
            break
        kept[token] = weights[token]
        mass += weights[token]
    return kept / kept.sum()


def exact(log_probs, sampling, ids):
    rows = np.array([processed(row, sampling) for row in np.exp(log_probs)])
    return np.take_along_axis(rows, ids, axis=1)


@settings(deadline=None)
@given(seeds, sharpness, samplings)
def test_with_every_token_recorded_it_is_exact(seed, scale, sampling):
    log_probs = log_probs_of(seed, scale)
    sample = recorded(log_probs, VOCABULARY)
    found = target_probs(sample, sampling, VOCABULARY)
    np.testing.assert_allclose(found, exact(log_probs, sampling, sample.top_ids), atol=1e-12)


@settings(max_examples=300, deadline=None)
@given(seeds, sharpness, samplings, st.integers(1, VOCABULARY - 1))
def test_with_fewer_recorded_it_is_a_lower_bound(seed, scale, sampling, entries):
    log_probs = log_probs_of(seed, scale)
    sample = recorded(log_probs, entries)
    found = target_probs(sample, sampling, VOCABULARY)
    assert (found >= 0).all()
    assert (found <= exact(log_probs, sampling, sample.top_ids) + 1e-9).all()


@settings(deadline=None)
@given(seeds, sharpness, st.sampled_from([0.0, 0.3, 1.0, 2.0]), st.sampled_from([0.3, 0.9, 1.0]))
def test_within_top_k_it_is_exact(seed, scale, temperature, top_p):
    log_probs = log_probs_of(seed, scale)
    sample = recorded(log_probs, 10)
    sampling = Sampling(temperature, top_p, top_k=10)
    found = target_probs(sample, sampling, VOCABULARY)
    np.testing.assert_allclose(found, exact(log_probs, sampling, sample.top_ids), atol=1e-12)


@settings(deadline=None)
@given(seeds, sharpness, st.integers(1, VOCABULARY - 1))
def test_at_temperature_1_the_tail_keeps_its_recorded_mass(seed, scale, entries):
    log_probs = log_probs_of(seed, scale)
    sample = recorded(log_probs, entries)
    found = target_probs(sample, Sampling(1.0), VOCABULARY)
    np.testing.assert_allclose(found, np.exp(sample.log_probs), atol=1e-9)


def test_what_float16_rounds_to_nothing_is_nothing():
    log_probs = np.array([[0, -np.inf], [-np.inf, -np.inf]], np.float16)
    ids = np.array([[0, 1], [0, 1]], np.int32)
    sample = sample_of(ids, log_probs, np.array([0, 1], np.float16))
    for temperature in (1e-30, 0.5, 1.0, 2.0):
        found = target_probs(sample, Sampling(temperature, top_p=0.9), VOCABULARY)
        np.testing.assert_array_equal(found, [[1, 0], [0, 0]])


@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf])
def test_a_temperature_that_no_engine_applies(temperature):
    record = buffer_pb2.Trajectory(sampling=buffer_pb2.Sampling(temperature=temperature))
    with pytest.raises(MalformedRecordError, match="temperature is"):
        sampling_of(record)


@pytest.mark.parametrize("top_p", [-0.1, 1.5, math.nan])
def test_a_top_p_that_no_engine_applies(top_p):
    record = buffer_pb2.Trajectory(sampling=buffer_pb2.Sampling(top_p=top_p))
    with pytest.raises(MalformedRecordError, match="top_p is"):
        sampling_of(record)


def test_a_record_without_parameters_is_greedy():
    assert sampling_of(buffer_pb2.Trajectory()).is_greedy
