"""An EAGLE-3 head learns beside its target, and the same after a restart."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from aurora_model.draft import Eagle3Draft
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.learning.gradient import Unroll, differentiate
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.learning.objective import objective_named

STEPS = 3


def taught(target, draft, **changes) -> Learner:
    """A learner with a target of its own beside it, as after a restart."""
    draft.attach(target.decoder)
    teacher = Teacher(target.decoder, draft.target_layers(target.decoder.config), **changes)
    settings = LearnerSettings(objective="LK", learning_rate=3e-3, unroll=Unroll(STEPS))
    return Learner(draft, settings, packed=teacher.pack)


def reduced(target, size: int) -> Eagle3Draft:
    """A head that proposes the even tokens below 2 × size alone."""
    start = Eagle3Draft.random(target.decoder.config, seed=1)
    draft = Eagle3Draft(replace(start.config, draft_vocab_size=size, owns_head=True))
    draft.load_state_dict(start.state_dict(), strict=False)
    with torch.no_grad():
        draft.d2t.copy_(torch.arange(size))
        draft.lm_head.weight.copy_(target.decoder.lm_head.weight[draft.token_ids])
    return draft


@pytest.fixture(autouse=True)
def frozen(target):
    target.decoder.requires_grad_(requires_grad=False)
    yield
    target.decoder.requires_grad_(requires_grad=True)


def train(learner: Learner, samples, steps: int, *, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for _ in range(steps):
        learner.step([samples[i] for i in random.integers(len(samples), size=16)])


@pytest.mark.parametrize("size", [64, 32])
def test_acceptance_on_the_holdout_rises(target, make_samples, size):
    samples, holdout = make_samples(200), make_samples(30, seed=1)
    whole = Eagle3Draft.random(target.decoder.config, seed=1)
    learner = taught(target, whole if size == 64 else reduced(target, size))
    before = learner.evaluate(holdout)
    train(learner, samples, 60)
    after = learner.evaluate(holdout)
    assert after.acceptance > 2 * before.acceptance
    assert after.loss < before.loss


def test_a_restored_learner_resumes_exactly(target, make_samples):
    samples = make_samples(40)
    learner = taught(target, Eagle3Draft.random(target.decoder.config, seed=1))
    train(learner, samples, 4)
    buffer = io.BytesIO()
    torch.save(dict(learner.state()), buffer)
    buffer.seek(0)
    other = taught(target, Eagle3Draft.build(learner.draft.config), cache_bytes=1 << 14)
    other.restore(torch.load(buffer, weights_only=True))
    for each in (learner, other):
        train(each, samples, 4, seed=9)
    for name, tensor in learner.state()["average"].items():
        torch.testing.assert_close(tensor, other.state()["average"][name], rtol=0, atol=0)


def test_a_step_leaves_the_target_as_it_is(target, make_samples):
    before = {name: tensor.clone() for name, tensor in target.decoder.state_dict().items()}
    learner = taught(target, Eagle3Draft.random(target.decoder.config, seed=1))
    train(learner, make_samples(10), 3)
    for name, tensor in target.decoder.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_gradient_is_that_of_the_weighted_mean_over_the_proposal(target, make_samples):
    draft = Eagle3Draft.random(target.decoder.config, seed=1)
    draft.attach(target.decoder)
    layers = draft.target_layers(target.decoder.config)
    batch = Teacher(target.decoder, layers).pack(make_samples(3))
    unroll, loss = Unroll(STEPS, 0.5), objective_named("LK")
    measure = differentiate(draft, batch, loss, positions=len(batch.rows), unroll=unroll)
    found = draft.fc.weight.grad.clone()
    draft.zero_grad()

    made = draft.unrolled(batch, batch.hidden, steps=STEPS)
    log_probs = draft.logits(made.features).log_softmax(-1)
    expected = log_probs.new_zeros(())
    for row in range(len(batch.rows)):
        mine = (made.rows == row).nonzero()[:, 0]
        weights = torch.tensor([0.5 ** int(made.steps[i]) for i in mine])
        wanted = batch.log_probs(torch.tensor([row]), None)[0]
        for index, weight in zip(mine, weights / weights.sum(), strict=True):
            alpha = torch.minimum(wanted.exp(), log_probs[index].exp()).sum().detach()
            likelihood = torch.exp(-3 * alpha)
            divergence = (wanted.exp() * (wanted - log_probs[index])).sum()
            variation = (wanted.exp() - log_probs[index].exp()).abs().sum() / 2
            expected = expected + weight * (likelihood * divergence + (1 - likelihood) * variation)
    expected = expected / len(batch.rows)
    expected.backward()
    assert measure.loss == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(found, draft.fc.weight.grad, rtol=1e-3, atol=1e-6)
