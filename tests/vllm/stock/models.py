"""A tiny random target for vLLM, and drafts whose acceptance is known by construction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aurora_common.checkpoint import CheckpointManifest, folder_digest
from aurora_model.draft import publish_draft
from aurora_model.draft.standalone import StandaloneDraft
from aurora_model.target import target_identity

CONTEXT_TOKENS = 512


@dataclass(frozen=True)
class Models:
    """`start` is the target itself, as Hugging Face saves it; the engine begins with it as draft.

    The others lie in `store`, as Aurora publishes them: `twin` has the start's weights, so every
    token of both is accepted; `cousin` is near them; hardly any token of `stranger` is accepted.
    `foreign` and `outsider` do not say that they descend from `start`, as the others do; hardly any
    token of `outsider` is accepted.
    """

    target: Path
    start: Path
    start_digest: str
    store: Path
    twin: CheckpointManifest
    cousin: CheckpointManifest
    stranger: CheckpointManifest
    foreign: CheckpointManifest
    outsider: CheckpointManifest

    def folder(self, draft: CheckpointManifest) -> Path:
        return self.store / draft.name


def made_models(root: Path, tokenizer: PreTrainedTokenizerFast) -> Models:
    target, start, store = root / "target", root / "start", root / "store"
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=CONTEXT_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    with torch.no_grad():
        # Random weights give flat distributions, in which rounding decides: sharpen them.
        model.lm_head.weight.mul_(40)
    for folder in (target, start):
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    start_digest = folder_digest(start)

    def published(name: str, *, noise: float, parent: str = start_digest) -> CheckpointManifest:
        draft = StandaloneDraft.load(start, dtype=torch.float32, device="cpu")
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in draft.parameters():
                parameter.add_(torch.randn_like(parameter) * parameter.std() * noise)
        identity = target_identity(target)
        return publish_draft(draft, store, name=name, target=identity, parent_digest=parent)[1]

    return Models(
        target=target,
        start=start,
        start_digest=start_digest,
        store=store,
        twin=published("twin", noise=0.0),
        cousin=published("cousin", noise=0.2),
        stranger=published("stranger", noise=20.0),
        foreign=published("foreign", noise=0.1, parent=""),
        # Other weights than the stranger's, or it would be the stranger.
        outsider=published("outsider", noise=21.0, parent=""),
    )
