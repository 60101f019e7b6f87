"""Learning: faster than chance, guarded against bad steps, the same after a restart."""

from __future__ import annotations

import copy
import dataclasses
import io

import numpy as np
import pytest
import torch

from aurora_model.decoder import causal_attend
from aurora_model.draft import Eagle3Draft, random_draft, small_draft_config
from aurora_trainer.learning.learner import Learner, LearnerSettings
from aurora_trainer.learning.optimizer import layer_matrices


def learner_for(target, **changes) -> Learner:
    settings = LearnerSettings(**{"objective": "LK", "learning_rate": 3e-3, **changes})
    return Learner(random_draft(small_draft_config(target.decoder.config), seed=1), settings)


def train(learner: Learner, samples, steps: int, *, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    for _ in range(steps):
        learner.step([samples[i] for i in random.integers(len(samples), size=16)])


@pytest.mark.parametrize(
    ("objective", "optimizer"), [("ForwardKL", "AdamW"), ("LK", "AdamW"), ("LK", "Muon")]
)
def test_overlap_on_the_holdout_rises(target, make_samples, objective, optimizer):
    samples, holdout = make_samples(400), make_samples(50, seed=1)
    learner = learner_for(target, objective=objective, optimizer=optimizer)
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


def test_of_a_greedy_request_the_most_probable_token_is_accepted_or_not(target, make_samples):
    sampled, greedy = make_samples(20), make_samples(20, seed=1)
    greedy = [dataclasses.replace(each, is_greedy=True) for each in greedy]
    learner = learner_for(target)
    train(learner, sampled, 100)
    draft, agreed = learner.average, []
    for sample in greedy:
        tokens = torch.from_numpy(sample.tokens).long()[None]
        positions = torch.arange(tokens.shape[1])[None]
        with torch.no_grad():
            best = draft.logits(draft(tokens, positions, causal_attend)).argmax(dim=-1)
        count = sample.output_count
        agreed += (best[0, -count - 1 : -1] == tokens[0, -count:]).tolist()

    found = learner.evaluate(greedy)
    assert found.acceptance == pytest.approx(np.mean(agreed))
    assert found.acceptance_upper == found.acceptance
    # Each request by its own.
    alone = learner.evaluate(sampled)
    assert learner.evaluate(sampled + greedy).acceptance == pytest.approx(
        (alone.acceptance + found.acceptance) / 2
    )
    assert learner.acceptance(draft, greedy) == found.acceptance


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


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_a_restored_learner_resumes_exactly(target, make_samples, optimizer):
    samples = make_samples(60)
    learner = learner_for(target, optimizer=optimizer)
    train(learner, samples, 5)
    buffer = io.BytesIO()
    torch.save(dict(learner.state()), buffer)
    buffer.seek(0)
    other = learner_for(target, optimizer=optimizer)
    other.restore(torch.load(buffer, weights_only=True))
    for each in (learner, other):
        train(each, samples, 5, seed=9)
    for name, tensor in learner.state()["average"].items():
        torch.testing.assert_close(tensor, other.state()["average"][name], rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["AdamW", "Muon"])
def test_a_learner_that_goes_on_from_a_draft_forgets_where_it_was_going(
    target, make_samples, optimizer
):
    samples = make_samples(20)
    learner = learner_for(target, optimizer=optimizer, weight_decay=0.0)
    start = copy.deepcopy(learner.draft)
    train(learner, samples, 4)
    learner.go_on_from(start)
    # Nothing to learn from: only an average of former gradients could move the weights.
    for parameter in learner.draft.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner._optimizer.step(1.0)
    for name, tensor in learner.draft.state_dict().items():
        torch.testing.assert_close(tensor, start.state_dict()[name], rtol=0, atol=1e-5)


def test_another_optimizer_keeps_the_weights(target, make_samples, caplog):
    samples = make_samples(20)
    learner = learner_for(target, optimizer="AdamW")
    train(learner, samples, 3)
    other = learner_for(target, optimizer="Muon")
    with caplog.at_level("INFO"):
        other.restore(learner.state())
    assert "optimizer state dropped" in caplog.text
    for name, tensor in learner.state()["average"].items():
        torch.testing.assert_close(other.state()["average"][name], tensor, rtol=0, atol=0)
    assert other.step(samples).applied


def test_a_state_of_before_there_was_a_choice_resumes_adamw(target, make_samples):
    samples = make_samples(20)
    learner = learner_for(target)
    train(learner, samples, 3)
    former = copy.deepcopy(learner.state())
    former["optimizer"] = former["optimizer"]["AdamW"]
    other = learner_for(target)
    other.restore(former)
    for each in (learner, other):
        train(each, samples, 2, seed=9)
    for name, tensor in learner.state()["draft"].items():
        torch.testing.assert_close(tensor, other.state()["draft"][name], rtol=0, atol=0)


def test_muon_turns_matrices_of_layers_alone(target):
    standalone = random_draft(small_draft_config(target.decoder.config), seed=1)
    assert set(layer_matrices(standalone)) == {
        f"layers.0.{name}.weight"
        for name in ("attention.qkv_proj", "attention.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    }
    head = Eagle3Draft.random(target.decoder.config, seed=1)
    assert "fc.weight" in layer_matrices(head)
    assert not any("embed" in name or "lm_head" in name for name in layer_matrices(head))


def test_tied_embeddings_stay_tied(target, make_samples):
    learner = learner_for(target)
    train(learner, make_samples(10), 2)
    for decoder in (learner.draft, learner.average):
        assert decoder.lm_head.weight is decoder.embed_tokens.weight
