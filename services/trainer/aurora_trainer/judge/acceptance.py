"""How likely the target is to accept a draft's token, by teacher forcing on a recorded request."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aurora_model.device import on_host
from aurora_model.draft import Draft
from aurora_trainer.data.batch import packed_tokens, row_chunks
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import TaughtBatch, Teacher
from aurora_trainer.judge.sampling import Sampling, target_probs

# Covers almost every nucleus; a row with a wider one is sorted whole.
_NUCLEUS_TOKENS = 128


def acceptance(
    draft: Draft,
    sample: Sample,
    sampling: Sampling,
    *,
    vocab_size: int,
    drafted: int = 1,
    greedy_drafts: bool = False,
    teacher: Teacher | None = None,
) -> NDArray[np.float64]:
    """Σ min(target, draft) over the recorded tokens at each output position, in [0, 1].

    [T], or [T, drafted] for a draft of which it depends on how many tokens of the same proposal
    come before.

    Both after the request's sampling, the draft's over its whole vocabulary (Leviathan et al. 2023,
    corollary 3.6). A lower bound as `target_probs` is one; what the tail would add counts as
    rejected, as does a position at which the draft's logits are not finite. A seed is not looked
    at: what it determines is accepted somewhat less often.

    `vocab_size`: the target's. `greedy_drafts`: the draft proposes its most probable token at any
    temperature. `teacher`: for drafts that need the target's states. The request is computed alone,
    so that its score depends on no other.
    """
    target = target_probs(sample, sampling, vocab_size)
    draft_sampling = Sampling(temperature=0.0) if greedy_drafts else sampling
    # In the context, the draft's last id stands for those that it lacks, as in training.
    size = draft.config.vocab_size
    known = replace(sample, tokens=np.minimum(sample.tokens, size - 1))
    proposed = _proposed(draft, known, draft_sampling, drafted, teacher)
    overlap = np.zeros((len(target), drafted if draft.needs_target else 1))
    overlap[proposed.rows, proposed.steps] = np.minimum(target[proposed.rows], proposed.probs).sum(
        axis=1
    )
    clipped: NDArray[np.float64] = overlap.clip(0.0, 1.0)
    return clipped if draft.needs_target else clipped[:, 0]


class _Proposed(NamedTuple):
    """With which probability the draft proposes each token recorded at `rows`, [R, k], as which
    token of a proposal, `steps`."""

    rows: NDArray[np.int64]
    steps: NDArray[np.int64]
    probs: NDArray[np.float64]


@torch.inference_mode()
def _proposed(
    draft: Draft, sample: Sample, sampling: Sampling, drafted: int, teacher: Teacher | None
) -> _Proposed:
    if teacher is None:
        batch = packed_tokens([sample], next(draft.parameters()).device)
    else:
        batch = teacher.pack([sample])
    hidden = batch.hidden if isinstance(batch, TaughtBatch) else None
    made = draft.unrolled(batch, hidden, steps=drafted)
    columns = _columns(torch.from_numpy(sample.top_ids).long().to(batch.rows.device), draft)
    chunks = [
        _at(columns[made.rows[part]], draft.logits(made.features[part]), sampling)
        for part in row_chunks(len(made.rows), draft.config.vocab_size)
    ]
    probs = torch.cat(chunks) if chunks else columns.new_zeros(0, columns.shape[1])
    return _Proposed(*on_host((made.rows, made.steps, probs.double())))


def _columns(ids: Tensor, draft: Draft) -> Tensor:
    """Where in the draft's logits tokens are; beyond them for those that it never proposes."""
    if draft.token_ids is None:
        return ids
    lacking = len(draft.token_ids)
    columns = torch.full((draft.config.vocab_size,), lacking, device=ids.device)
    columns[draft.token_ids] = torch.arange(lacking, device=ids.device)
    return columns[ids]


def _at(ids: Tensor, logits: Tensor, sampling: Sampling) -> Tensor:
    """ids [n, k], columns of the logits [n, V] -> [n, k] float32; 0 for those from V on."""
    if sampling.is_greedy:
        found = (ids == logits.argmax(dim=-1, keepdim=True)).float()
    else:
        size = logits.shape[-1]
        probs = _probs(logits.float(), sampling)
        found = probs.gather(-1, ids.clamp_max(size - 1)).masked_fill(ids >= size, 0.0)
    is_finite = logits.sum(dim=-1, keepdim=True).isfinite()
    return torch.where(is_finite, found, 0.0).nan_to_num(0.0)


def _probs(logits: Tensor, sampling: Sampling) -> Tensor:
    """[n, V] -> probabilities after temperature, top-k and top-p; ties of the last kept stay."""
    scaled = logits / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[-1]:
        lowest = scaled.topk(sampling.top_k, dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < lowest, -torch.inf)
    probs = scaled.softmax(dim=-1)
    return _truncated_to_nucleus(probs, sampling.top_p) if sampling.top_p < 1 else probs


def _truncated_to_nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Keeps the smallest set of most probable tokens whose mass reaches top_p (Holtzman 2020)."""
    top = probs.topk(min(_NUCLEUS_TOKENS, probs.shape[-1]), dim=-1).values
    lowest = _last_kept(top, top_p)
    wide = top.sum(dim=-1) < top_p
    if bool(wide.any()):
        lowest[wide] = _last_kept(probs[wide].sort(dim=-1, descending=True).values, top_p)
    kept = torch.where(probs >= lowest, probs, 0.0)
    return kept / kept.sum(dim=-1, keepdim=True)


def _last_kept(descending: Tensor, top_p: float) -> Tensor:
    """The last of the most probable tokens before which there is less than top_p, [n, 1]."""
    before = descending.cumsum(dim=-1) - descending
    last = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return descending.gather(-1, last.clamp_min(0))
