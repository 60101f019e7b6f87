"""Packing: each row meets the position that predicts its token, and sequences do not mix."""

from __future__ import annotations

import dataclasses

import torch

from aurora_model.decoder import packed_attend
from aurora_trainer.data.batch import pack


def packed_log_probs(decoder, batch):
    hidden = decoder(batch.tokens, batch.positions, packed_attend(batch.lengths))
    return decoder.logits(hidden[0, batch.rows]).log_softmax(-1)


@torch.no_grad()
def test_the_targets_own_logits_are_its_recorded_rows(target, make_samples):
    batch = pack(make_samples(6))
    found = packed_log_probs(target.decoder, batch).gather(-1, batch.top_ids)
    torch.testing.assert_close(found, batch.log_probs, atol=5e-3, rtol=5e-3)


@torch.no_grad()
def test_packed_sequences_do_not_attend_to_each_other(target, make_samples, next_log_probs):
    samples = [
        dataclasses.replace(sample, tokens=sample.tokens[cut:])
        for cut, sample in enumerate(make_samples(4))
    ]
    together = packed_log_probs(target.decoder, pack(samples)).split(
        [sample.output_count for sample in samples]
    )
    for sample, rows in zip(samples, together, strict=True):
        tokens = torch.from_numpy(sample.tokens).long().unsqueeze(0)
        alone = next_log_probs(target.decoder, tokens)[0, -sample.output_count - 1 : -1]
        torch.testing.assert_close(rows, alone, atol=1e-4, rtol=1e-4)


def test_rows_sum_to_one(make_samples):
    batch = pack(make_samples(8))
    torch.testing.assert_close(
        batch.log_probs.exp().sum(-1) + batch.tail_mass, torch.ones(len(batch.rows))
    )


def test_the_smallest_k_holds_and_the_rest_moves_to_the_tail(make_samples):
    wide, other = make_samples(2)
    narrow = dataclasses.replace(
        other,
        top_ids=other.top_ids[:, :3],
        log_probs=other.log_probs[:, :3],
        tail_mass=(1 - torch.from_numpy(other.log_probs[:, :3]).float().exp().sum(-1))
        .half()
        .numpy(),
    )
    mixed, alone = pack([wide, narrow]), pack([wide])
    assert mixed.top_ids.shape[1] == 3
    rows = wide.output_count
    torch.testing.assert_close(mixed.log_probs[:rows], alone.log_probs[:, :3])
    torch.testing.assert_close(
        mixed.tail_mass[:rows], alone.tail_mass + alone.log_probs[:, 3:].exp().sum(-1)
    )
