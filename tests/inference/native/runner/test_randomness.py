"""Random numbers follow from seed, output position and purpose, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from aurora_inference.native.runner.randomness import Purpose, Randomness

VOCABULARY = 50
seeds = st.integers(-(1 << 63), (1 << 64) - 1)


@settings(deadline=None)
@given(seeds, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 8)), max_size=12))
def test_numbers_do_not_depend_on_what_was_drawn_before(seed, steps):
    """Whatever the lengths of the steps: an output advances, and a step looks ahead."""
    random, position = Randomness(seed, VOCABULARY), 0
    for advance, ahead in steps:
        position += advance
        uniforms = random.uniforms(position, ahead + 1)
        noise = random.noise(position, ahead + 1)
        for place in range(ahead + 1):
            alone = Randomness(seed, VOCABULARY)
            assert (uniforms[place] == alone.uniforms(position + place, 1)[0]).all()
            assert (noise[place] == alone.noise(position + place, 1)[0]).all()


def test_seeds_positions_and_purposes_differ():
    some = [Randomness(seed, VOCABULARY) for seed in (0, 1, 1 << 63, (1 << 64) - 1)]
    uniforms = np.concatenate([random.uniforms(0, 300) for random in some])
    assert uniforms.shape == (4 * 300, len(Purpose))
    # A few of 3,600 draws of 24 bits coincide by chance.
    assert len(np.unique(uniforms)) > uniforms.size - 10
    noise = np.concatenate([np.concatenate(random.noise(0, 40)) for random in some])
    assert len(np.unique(noise)) > noise.size - 10


def test_a_seed_counts_modulo_two_to_the_64():
    negative, positive = Randomness(-3, VOCABULARY), Randomness((1 << 64) - 3, VOCABULARY)
    assert (negative.uniforms(0, 9) == positive.uniforms(0, 9)).all()
    assert (negative.noise(5, 1)[0] == positive.noise(5, 1)[0]).all()


def test_without_a_seed_no_two_requests_are_alike():
    one, other = Randomness(None, VOCABULARY), Randomness(None, VOCABULARY)
    assert (one.uniforms(0, 9) != other.uniforms(0, 9)).any()


@pytest.mark.parametrize("vocabulary", [1, VOCABULARY, 50_000])
def test_a_tokens_noise_does_not_depend_on_the_size_of_the_vocabulary(vocabulary):
    (noise,) = Randomness(7, vocabulary).noise(3, 1)
    (longer,) = Randomness(7, vocabulary + 32).noise(3, 1)
    assert (noise == longer[:vocabulary]).all()


def test_numbers_have_their_distributions():
    random = Randomness(1, 5_000)
    uniforms = random.uniforms(0, 10_000)
    for purpose in Purpose:
        assert stats.kstest(uniforms[:, purpose], "uniform").pvalue > 1e-4
    noise = np.concatenate(random.noise(0, 10))
    assert noise.dtype == np.float32
    assert noise.min() > 0
    assert stats.kstest(noise, "expon").pvalue > 1e-4
