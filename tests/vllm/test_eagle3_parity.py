"""vLLM's EAGLE-3 head drafts what Aurora's does from the same checkpoint, in both layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stock.server import SPECULATION_LENGTH, Server, serving

from aurora_model.decoder import Decoder, causal_attend
from aurora_model.draft import Eagle3Draft, publish_draft
from aurora_model.draft.eagle3_layout import Verifier
from aurora_model.target import target_identity
from aurora_model.weights import load_decoder
from aurora_trainer.data.sample import Sample
from aurora_trainer.data.teacher import Teacher

_REQUESTS, _TOKENS = 8, 72
_REDUCED = 200
_SHARED = {"layout": "LlamaForCausalLMEagle3"}
_OWN = {
    "layout": "speculators",
    "draft_vocab_size": _REDUCED,
    "owns_head": True,
    "owns_embedding": True,
    "norm_before_residual": True,
    "verifier": Verifier("target", ("LlamaForCausalLM",)),
}


@dataclass(frozen=True)
class Speculating:
    server: Server
    target: Decoder
    draft: Eagle3Draft


def random_head(target: Decoder, **changes) -> Eagle3Draft:
    start = Eagle3Draft.random(target.config, seed=0).config
    head = Eagle3Draft(replace(start, **changes))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in head.parameters():
            center = 1.0 if parameter.dim() == 1 else 0.0
            parameter.normal_(center, 0.2, generator=generator)
        if head.config.is_reduced:
            ids = torch.randperm(head.config.vocab_size, generator=generator)[:_REDUCED]
            head.d2t.copy_(ids.sort().values - torch.arange(_REDUCED))
    head.attach(target)
    return head


@pytest.fixture(params=[_SHARED, _OWN], ids=["LlamaForCausalLMEagle3", "speculators"])
def speculating(request, models, plugin, tmp_path) -> Iterator[Speculating]:
    target = load_decoder(models.target, dtype=torch.float32)
    draft = random_head(target, **request.param)
    identity = target_identity(models.target)
    folder: Path
    folder, _ = publish_draft(draft, tmp_path / "store", name="head", target=identity)
    with serving(
        target=models.target,
        draft=folder,
        store=tmp_path / "store",
        python_path=[plugin],
        log=tmp_path / "vllm.txt",
        method="eagle3",
    ) as server:
        yield Speculating(server, target, draft)


@torch.inference_mode()
def proposed(found: Speculating, tokens: list[int]) -> list[int]:
    """What the head drafts most probably after these tokens."""
    draft, known = found.draft, torch.tensor([tokens])
    layers = draft.target_layers(found.target.config)
    positions = torch.arange(len(tokens) - 1)[None]
    _, entering = found.target.states(known[:, :-1], positions, causal_attend, layers)
    states = draft.project(torch.cat(entering, dim=-1))
    for _ in range(SPECULATION_LENGTH):
        positions = torch.arange(known.shape[1] - 1)[None]
        following = draft(known[:, 1:], states, positions, causal_attend)[:, -1:]
        best = draft.logits(following).argmax(-1)
        if draft.token_ids is not None:
            best = draft.token_ids[best]
        known, states = torch.cat((known, best), dim=1), torch.cat((states, following), dim=1)
    return known[0, len(tokens) :].tolist()


async def test_both_draft_the_same_tokens_and_compute_the_same_target(speculating, plain):
    same = drafted_tokens = 0
    worst = 0.0
    teacher = Teacher(speculating.target, ())
    async with speculating.server.client() as client:
        for number, prompt in enumerate(plain.prompts[:_REQUESTS]):
            wanted = {"aurora_key": str(number), "aurora_capture": 1}
            answer = await client.complete(prompt, _TOKENS, vllm_xargs=wanted)
            header, body = await client.capture()
            while not header["requests"]:
                header, body = await client.capture()
            await client.capture(ack=header["batch"])
            [request] = header["requests"]
            count, entries = request["tokens"], request["k"]
            ids = np.frombuffer(body, "<u4", count * entries).reshape(count, entries)
            log_probs = np.frombuffer(body, "<f2", ids.size, ids.nbytes).reshape(ids.shape)
            drafted = np.frombuffer(body[-4 * sum(n for n, _ in request["steps"]) :], "<u4")
            text = prompt + answer.tokens
            # The last step may have emitted more than was asked for.
            said = slice(len(answer.tokens))
            worst = max(worst, _disagreement(teacher, text, ids[said], log_probs[said]))
            known, begin = len(prompt) + 1, 0
            for length, accepted in request["steps"]:
                expected = proposed(speculating, text[:known])[:length]
                same += sum(
                    a == b for a, b in zip(expected, drafted[begin : begin + length], strict=True)
                )
                known, begin = known + accepted + 1, begin + length
            drafted_tokens += begin
    assert answer.tokens == plain.outputs[_REQUESTS - 1][:_TOKENS]
    assert drafted_tokens > 2000
    assert same / drafted_tokens > 0.99
    assert worst < 1e-3


def _disagreement(
    teacher: Teacher, text: list[int], ids: np.ndarray, log_probs: np.ndarray
) -> float:
    """The largest difference in probability between what was captured and what is recomputed."""
    tokens = np.array(text, np.int32)
    empty = np.zeros((len(ids), 0), np.int32)
    alone = Sample(
        str(tokens), "r", "d", tokens, empty, empty.astype(np.float16), np.ones(len(ids))
    )
    recomputed = teacher.recorded(alone, ids.shape[1])
    whole = np.zeros((len(ids), 1 << 16))
    rows = np.arange(len(ids))[:, None]
    whole[rows, recomputed.top_ids] = np.exp(recomputed.log_probs.astype(np.float64))
    return float(np.abs(whole[rows, ids] - np.exp(log_probs.astype(np.float64))).max())
