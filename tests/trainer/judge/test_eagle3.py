"""EAGLE-3 heads are compared on recorded tokens, each token by its place in a proposal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from aurora_model.draft import Eagle3Draft, publish_draft
from aurora_trainer.data.teacher import Teacher
from aurora_trainer.judge.acceptance import acceptance
from aurora_trainer.judge.comparison import Comparisons, JudgedDraft, Pair
from aurora_trainer.judge.sampling import Sampling
from aurora_trainer.learning.gradient import Unroll
from aurora_trainer.learning.learner import Learner, LearnerSettings

DRAFTED = 3
TEMPERATURES = [0.0, 1.0]


@pytest.fixture(scope="module")
def heads(target, make_samples, tmp_path_factory) -> dict[str, tuple[Eagle3Draft, JudgedDraft]]:
    """`fresh`, and `taught`, which was trained."""
    target.decoder.requires_grad_(requires_grad=False)
    fresh = Eagle3Draft.random(target.decoder.config, seed=1)
    fresh.attach(target.decoder)
    teacher = Teacher(target.decoder, fresh.target_layers(target.decoder.config))
    start = Eagle3Draft.random(target.decoder.config, seed=1)
    start.attach(target.decoder)
    settings = LearnerSettings(objective="LK", learning_rate=1e-2, unroll=Unroll(DRAFTED))
    learner = Learner(start, settings, packed=teacher.pack)
    random, samples = np.random.default_rng(0), make_samples(100)
    for _ in range(120):
        learner.step([samples[i] for i in random.integers(len(samples), size=16)])
    root, found = tmp_path_factory.mktemp("heads"), {}
    for name, head in (("fresh", fresh), ("taught", learner.average)):
        folder, manifest = publish_draft(head, root, name=name, target=target.identity)
        found[name] = (head, JudgedDraft(manifest.digest, folder.as_uri()))
    target.decoder.requires_grad_(requires_grad=True)
    return found


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_trained_head_needs_fewer_steps_on_token_ids_alone(
    heads, target, make_entries, temperature
):
    accepted = replace(target.record_format, recomputed=True)
    comparisons = Comparisons(target.identity, accepted, held_target=target.decoder)
    comparison = comparisons.load(Pair(heads["fresh"][1], heads["taught"][1], greedy_drafts=True))
    entries = make_entries(8, temperature=temperature)
    for entry in entries:
        entry.trajectory.ClearField("target")
    scores = [comparison.score(entry) for entry in entries]
    assert sum(s.candidate_steps for s in scores) < 0.9 * sum(s.stable_steps for s in scores)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@torch.no_grad()
def test_acceptance_is_the_overlap_at_each_place_in_a_proposal(
    heads, target, make_samples, temperature
):
    head, [sample] = heads["taught"][0], make_samples(1)
    teacher = Teacher(target.decoder, head.target_layers(target.decoder.config))
    known = teacher.recorded(sample, target.identity.vocab_size)
    found = acceptance(
        head,
        known,
        Sampling(temperature),
        vocab_size=target.identity.vocab_size,
        drafted=DRAFTED,
        teacher=teacher,
    )
    batch = teacher.pack([sample])
    made = head.unrolled(batch, batch.hidden, steps=DRAFTED)
    probs = head.logits(made.features).softmax(-1)
    wanted = batch.log_probs(torch.arange(len(batch.rows)), None).exp()
    if temperature == 0.0:
        probs, wanted = (
            torch.zeros_like(each).scatter(-1, each.argmax(-1, keepdim=True), 1.0)
            for each in (probs, wanted)
        )
    assert found.shape == (sample.output_count, DRAFTED)
    for row, step, mine in zip(made.rows.tolist(), made.steps.tolist(), probs, strict=True):
        expected = torch.minimum(mine, wanted[row]).sum().item()
        assert found[row, step] == pytest.approx(expected, abs=2e-3)


@torch.no_grad()
def test_tokens_that_a_head_never_proposes_are_not_accepted(target, make_samples):
    whole = Eagle3Draft.random(target.decoder.config, seed=1)
    head = Eagle3Draft(replace(whole.config, draft_vocab_size=32, owns_head=True))
    head.d2t.copy_(torch.arange(32))  # the even ones
    torch.nn.init.zeros_(head.lm_head.weight)
    head.attach(target.decoder)
    teacher = Teacher(target.decoder, head.target_layers(target.decoder.config))
    [sample] = make_samples(1)
    known = teacher.recorded(sample, target.identity.vocab_size)
    found = acceptance(head, known, Sampling(1.0), vocab_size=64, drafted=DRAFTED, teacher=teacher)
    batch = teacher.pack([sample])
    wanted = batch.log_probs(torch.arange(len(batch.rows)), torch.arange(0, 64, 2)).exp()
    expected = wanted.clamp_max(1 / 32).sum(-1)
    np.testing.assert_allclose(found[:, 0], expected.numpy(), atol=2e-3)
