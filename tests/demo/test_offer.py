"""The drafts that the demo publishes on purpose are worse and slower, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aurora_client import Deployment, PastRollout, Rollout, ServedDraft
from aurora_client._status import Queue, Status
from aurora_demo.offer import OFFERS, Offering, slower, worse
from aurora_model.draft import PackedTokens, draft_kind, load_draft, publish_draft
from aurora_model.target import target_identity
from aurora_model.weights import load_decoder
from aurora_trainer.published import published_after

TOKENS = 12


@pytest.fixture(params=["standalone", "eagle3"])
def compared(request, models):
    """A draft, and what drafts of its kind predict on the same tokens: logits [M, V]."""
    target = load_decoder(models.target, dtype=torch.float32)
    draft = draft_kind(request.param).random(target.config, 1)
    batch = PackedTokens(
        torch.arange(1, TOKENS + 1)[None],
        torch.arange(TOKENS)[None],
        (TOKENS,),
        torch.arange(1, TOKENS - 1),
    )
    width = len(draft.target_layers(target.config)) * target.config.hidden_size
    states = torch.randn(1, TOKENS, width, generator=torch.Generator().manual_seed(2))

    def predicted(other):
        other.attach(target)
        with torch.no_grad():
            return other.logits(other.features(batch, states if width else None))

    return draft, predicted


def test_the_slower_draft_predicts_the_same_with_more_weights(compared):
    draft, predicted = compared
    wide = slower(draft)
    torch.testing.assert_close(predicted(wide), predicted(draft))
    assert wide.multiplications(tokens=1, predictions=0) > 3 * draft.multiplications(
        tokens=1, predictions=0
    )


def test_the_worse_draft_predicts_otherwise_with_as_many_weights(compared):
    draft, predicted = compared
    before, work = predicted(draft), draft.multiplications(tokens=1, predictions=1)
    changed = worse(draft)
    assert not torch.allclose(predicted(changed), before, atol=1e-3)
    assert changed.multiplications(tokens=1, predictions=1) == work


@pytest.fixture
def stable(models, tmp_path) -> ServedDraft:
    target = load_decoder(models.target, dtype=torch.float32)
    folder, manifest = publish_draft(
        draft_kind("standalone").random(target.config, 1),
        tmp_path / "published",
        name="ckpt-4",
        target=target_identity(models.target),
    )
    return ServedDraft(checkpoint="ckpt-4", digest=manifest.digest, uri=folder.as_uri())


def test_offers_are_published_one_after_the_other(models, stable, tmp_path):
    folder = tmp_path / "published"
    offering = Offering(folder, models.target)
    idle = Status(stable=stable)

    def due(status):
        return offering.publish_due(Deployment("adapted", "", False, (), status, ""))

    assert due(Status()) is None
    waits = replace(idle, queue=Queue(waiting=ServedDraft(digest="sha256:other")))
    assert due(waits) is None
    # It may wait for a rollout in progress.
    assert due(replace(idle, rollout=Rollout(id="adapted-4"))) == OFFERS[0].title
    assert due(replace(idle, queue=Queue(sequence=4))) is None
    (first,) = published_after(folder, 4)
    digest = first.manifest.digest
    assert (first.sequence, first.manifest.parent_digest) == (5, stable.digest)
    assert first.manifest.trained_through
    assert first.manifest.metrics == {"acceptance": 1.0}
    load_draft(first.folder, target=target_identity(models.target), dtype=torch.float32)

    # The trainer published a newer one before its turn came.
    assert due(replace(idle, queue=Queue(sequence=6))) == OFFERS[0].title
    (again,) = published_after(folder, 5)
    assert (again.sequence, again.manifest.digest) == (6, digest)
    trying = Rollout(id="adapted-6", candidate=ServedDraft(digest=digest))
    assert due(replace(idle, rollout=trying, queue=Queue(sequence=6))) is None

    judged = PastRollout(id="adapted-6", digest=digest)
    assert due(replace(idle, history=(judged,))) == OFFERS[1].title
    (second,) = published_after(folder, 6)
    last = PastRollout(id="adapted-7", digest=second.manifest.digest)
    assert not offering.is_over
    assert due(replace(idle, history=(last, judged))) is None
    assert offering.is_over
    assert offering.titles == {
        digest: OFFERS[0].title,
        second.manifest.digest: OFFERS[1].title,
    }
