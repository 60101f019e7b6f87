"""Replica 0's step is the same whichever replicas compute it, even if some fail."""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import torch

from aurora_model.draft import StandaloneDraft, random_draft, small_draft_config
from aurora_trainer.learning.gradient import LocalGradient, differentiate
from aurora_trainer.learning.objective import objective_named
from aurora_trainer.replica import shared_gradient
from aurora_trainer.replica.call import Answer
from aurora_trainer.replica.discovery import Place
from aurora_trainer.replica.parameter import gradients
from aurora_trainer.replica.share import ShareTask, parsed_batch
from aurora_trainer.replica.shared_gradient import SharedGradient
from aurora_trainer.replica.tensor_file import pieces

LOSS = objective_named("LK")
A, B = Place("10.0.0.1:1"), Place("10.0.0.2:1")


class FakeExchange:
    """Replicas that compute immediately, fail, or never answer."""

    def __init__(self, config, *places: Place) -> None:
        self.places = places
        self.failing: set[Place] = set()
        self.silent: set[Place] = set()
        self.seconds = 0.0
        self.futures: dict[Place, Future[Answer | None]] = {}
        self.tokens: dict[Place, int] = {}
        self._config = config

    def known(self):
        return {A, B}

    def ready(self):
        return self.places

    def begin(self, shares, weights):
        self.futures = {place: Future() for place in shares}
        self.tokens = {place: sum(share.lengths) for place, share in shares.items()}
        for place, share in shares.items():
            if place not in self.silent:
                found = None if place in self.failing else self._answer(place, share, weights)
                self.futures[place].set_result(found)
        return self.futures

    def _answer(self, place, share, weights):
        task = ShareTask(
            StandaloneDraft, self._config, share.objective, share.positions, share.lengths
        )
        draft = random_draft(self._config, seed=9)
        with torch.no_grad():
            for name, parameter in draft.named_parameters():
                parameter.copy_(weights[name])
        measure = differentiate(
            draft,
            parsed_batch(b"".join(pieces(share.batch)), task),
            LOSS,
            positions=share.positions,
        )
        return Answer(measure, gradients(draft), self.seconds)


@pytest.fixture
def draft(target):
    return random_draft(small_draft_config(target.decoder.config), seed=1)


@pytest.fixture
def exchange(draft):
    return FakeExchange(draft.config, A, B)


def assert_same_step(draft, gradient, samples, *, replicas):
    draft.zero_grad()
    whole = LocalGradient(LOSS).differentiate(draft, samples)
    expected = {name: each.clone() for name, each in gradients(draft).items()}
    draft.zero_grad()
    measure = gradient.differentiate(draft, samples)
    assert measure.replicas == replicas
    assert measure.loss == pytest.approx(whole.loss, abs=1e-5)
    assert measure.acceptance == pytest.approx(whole.acceptance, abs=1e-5)
    for name, found in gradients(draft).items():
        torch.testing.assert_close(found, expected[name], atol=1e-6, rtol=1e-4)


def test_a_step_of_three_is_the_step_of_one(draft, exchange, make_samples):
    assert_same_step(draft, SharedGradient("LK", exchange), make_samples(7), replicas=3)


def test_failed_shares_are_computed_here(draft, exchange, make_samples):
    exchange.failing = {A}
    assert_same_step(draft, SharedGradient("LK", exchange), make_samples(7), replicas=2)
    exchange.failing = {A, B}
    assert_same_step(draft, SharedGradient("LK", exchange), make_samples(7), replicas=1)


def test_a_silent_replica_is_not_awaited_for_ever(draft, exchange, make_samples, monkeypatch):
    monkeypatch.setattr(shared_gradient, "_LEAST_FIRST_WAIT_SECONDS", 0.0)
    exchange.silent = {B}
    gradient = SharedGradient("LK", exchange)
    assert_same_step(draft, gradient, make_samples(7), replicas=2)
    assert exchange.futures[B].cancelled()
    # It rests, and is remembered as one that takes longer than a step.
    exchange.places = (A,)
    assert_same_step(draft, gradient, make_samples(7), replicas=2)
    exchange.places = (A, B)
    assert_same_step(draft, gradient, make_samples(7), replicas=2)
    assert set(exchange.futures) == {A}


@pytest.mark.parametrize("known", [False, True], ids=["first", "later"])
def test_the_first_answer_is_awaited_longer(draft, exchange, make_samples, monkeypatch, known):
    exchange.places = (A,)
    gradient = SharedGradient("LK", exchange)
    if known:
        assert_same_step(draft, gradient, make_samples(4), replicas=2)
    waits = []

    class Waited(Future):
        def result(self, timeout=None):
            waits.append(timeout)
            raise TimeoutError

    monkeypatch.setattr(exchange, "begin", lambda shares, weights: dict.fromkeys(shares, Waited()))
    assert_same_step(draft, gradient, make_samples(4), replicas=1)
    assert waits == [pytest.approx(2.0 if known else 10.0, abs=0.5)]


def test_a_call_that_is_cancelled_is_computed_here(draft, exchange, make_samples):
    exchange.silent = {A, B}
    begin = exchange.begin

    def cancelled(shares, weights):
        found = begin(shares, weights)
        for future in found.values():
            future.cancel()
        return found

    exchange.begin = cancelled
    assert_same_step(draft, SharedGradient("LK", exchange), make_samples(7), replicas=1)


def test_it_computes_alone_if_no_replica_is_ready(draft, exchange, make_samples):
    exchange.places = ()
    assert_same_step(draft, SharedGradient("LK", exchange), make_samples(7), replicas=1)


def test_of_two_samples_one_is_kept(draft, exchange, make_samples):
    gradient = SharedGradient("LK", exchange)
    assert_same_step(draft, gradient, make_samples(2), replicas=2)
    assert_same_step(draft, gradient, make_samples(1), replicas=1)


def test_a_replica_that_lags_behind_is_excluded(draft, exchange, make_samples):
    exchange.places, exchange.seconds = (A,), 3600.0
    gradient, samples = SharedGradient("LK", exchange), make_samples(16)
    # The first answer says nothing of those to come.
    for replicas in (2, 2, 1):
        assert_same_step(draft, gradient, samples, replicas=replicas)
    assert exchange.futures == {}
