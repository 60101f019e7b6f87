"""Learning: faster than chance, guarded against bad steps, the same after a restart."""

from __future__ import annotations

import copy
import dataclasses
import io

import numpy as np
import pytest
import torch

from aurora_model.draft import random_draft, small_draft_config
from aurora_trainer.learning.learner import Learner, LearnerSettings


def learner_for(target, **changes) -> Learner:
    settings = LearnerSettings(**{"objective": "LK", "learning_rate": 3e-3, **changes})
    return Learner(random_draft(small_draft_config(target.decoder.config), seed=1), settings)


def train(learner: Learner, samples, steps: int, *, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for _ in range(steps):
        learner.step([samples[i] for i in random.integers(len(samples), size=16)])


@pytest.mark.parametrize("objective", ["ForwardKL", "LK"])
def test_overlap_on_the_holdout_rises(target, make_samples, objective):
    samples, holdout = make_samples(400), make_samples(50, seed=1)
    learner = learner_for(target, objective=objective)
    before = learner.evaluate(holdout)
    train(learner, samples, 300)
    after = learner.evaluate(holdout)
    assert before.acceptance < 0.2
    assert after.acceptance > 2.5 * before.acceptance
    assert after.loss < before.loss / 3


def test_averaged_weights_follow_even_a_short_run(target, make_samples):
    samples = make_samples(100)
    learner = learner_for(target)
    before = learner.evaluate(samples).loss
    train(learner, samples, 20)
    assert learner.evaluate(samples).loss < before - 0.3


def test_evaluation_of_nothing_is_none(target):
    assert learner_for(target).evaluate([]) is None


def poisoned(samples):
    log_probs = samples[0].log_probs.copy()
    log_probs[0, 0] = np.nan
    return [dataclasses.replace(samples[0], log_probs=log_probs), *samples[1:]]


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(target, make_samples):
    samples = make_samples(4)
    learner = learner_for(target)
    learner.step(samples)
    before = copy.deepcopy(learner.state())
    assert not learner.step(poisoned(samples)).applied
    assert learner.skipped_steps == 1
    assert learner.steps == before["steps"]
    for name, tensor in learner.state()["draft"].items():
        torch.testing.assert_close(tensor, before["draft"][name], rtol=0, atol=0)


def test_several_bad_steps_restore_the_snapshot(target, make_samples):
    samples = make_samples(4)
    learner = learner_for(target, failures_before_restore=3)
    learner.step(samples)
    learner.take_snapshot()
    snapshot = copy.deepcopy(learner.state())
    learner.step(samples)
    for _ in range(3):
        learner.step(poisoned(samples))
    assert (learner.steps, learner.skipped_steps) == (1, 3)
    for name, tensor in learner.state()["draft"].items():
        torch.testing.assert_close(tensor, snapshot["draft"][name], rtol=0, atol=0)
    assert learner.step(samples).applied


def test_a_restored_learner_resumes_exactly(target, make_samples):
    samples = make_samples(60)
    learner = learner_for(target)
    train(learner, samples, 5)
    buffer = io.BytesIO()
    torch.save(dict(learner.state()), buffer)
    buffer.seek(0)
    other = learner_for(target)
    other.restore(torch.load(buffer, weights_only=True))
    for each in (learner, other):
        train(each, samples, 5, seed=9)
    for name, tensor in learner.state()["average"].items():
        torch.testing.assert_close(tensor, other.state()["average"][name], rtol=0, atol=0)


def test_tied_embeddings_stay_tied(target, make_samples):
    learner = learner_for(target)
    train(learner, make_samples(10), 2)
    for decoder in (learner.draft, learner.average):
        assert decoder.lm_head.weight is decoder.embed_tokens.weight
