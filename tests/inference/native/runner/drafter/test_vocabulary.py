"""A draft whose vocabulary is padded to another size than the target's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from aurora_inference.contract import Request, Sampling
from aurora_model.draft import publish_draft, random_draft, small_draft_config

PROMPT = tuple(range(3, 20))


@pytest.fixture
def engine_with(make_engine, target, tmp_path):
    """engine_with(rows, tied): an engine whose draft has that many tokens."""

    def engine(rows: int, *, tied: bool = True):
        config = small_draft_config(target.decoder.config)
        config = replace(config, vocab_size=rows, tie_word_embeddings=tied)
        identity = replace(target.identity, vocab_size=max(rows, target.identity.vocab_size))
        folder, _ = publish_draft(random_draft(config, 3), tmp_path, name="draft", target=identity)
        harness = make_engine(draft=None)
        harness.engine.stage("stable", harness.engine.runner.load_drafter(folder, ""))
        return harness

    return engine


def requests(sampling: Sampling) -> list[Request]:
    return [Request(f"r{i}", PROMPT[: i + 2], 40, sampling, ignore_eos=True) for i in range(6)]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("rows", [48, 95, 97, 128])
def test_the_text_is_the_targets(make_engine, engine_with, rows, tied):
    greedy = requests(Sampling(temperature=0.0))
    expected = make_engine(draft=None).run(*greedy)
    assert engine_with(rows, tied=tied).run(*greedy) == expected


@pytest.mark.parametrize("sampling", [Sampling(8.0), Sampling(8.0, top_k=60), Sampling(8.0, 0.9)])
def test_tokens_that_the_draft_lacks_have_no_probability(engine_with, monkeypatch, sampling):
    harness = engine_with(48)
    (drafter,) = harness.engine._drafters.values()
    proposals = []
    propose = drafter.propose

    def watched(*arguments):
        proposals.append(propose(*arguments))
        return proposals[-1]

    monkeypatch.setattr(drafter, "propose", watched)
    outputs = harness.run(*requests(sampling))

    # The target does say them, and the draft goes on after them.
    assert any(token >= 48 for tokens in outputs.values() for token in tokens)
    assert proposals
    for proposal in proposals:
        assert proposal.probs.shape[-1] == 96
        assert (proposal.probs[..., 48:] == 0).all()
        torch.testing.assert_close(proposal.probs.sum(-1), torch.ones(proposal.probs.shape[:-1]))
        assert (proposal.tokens < 48).all()
