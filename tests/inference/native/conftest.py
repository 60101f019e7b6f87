"""Tiny random models, small enough to run hundreds of requests in seconds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from aurora_inference.contract import Progress, Request, Sampling
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.native.launch import new_engine
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.drafter.standalone import StandaloneDrafter
from aurora_inference.native.runner.target import Target
from aurora_inference.trajectory.completion import Completion
from aurora_kernels.sampling import SamplingRows
from aurora_model.decoder import causal_attend
from aurora_model.target import TargetIdentity
from aurora_model.weights import load_decoder

VOCABULARY = 96
MAX_BATCH = 8


def _save_llama(folder, *, seed: int, layers: int, width: int, sharpness: float) -> None:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            eos_token_id=2,
            bos_token_id=1,
            tie_word_embeddings=False,
        )
    )
    with torch.no_grad():
        # Random weights give flat distributions, where rounding decides the argmax: sharpen them.
        model.lm_head.weight.mul_(sharpness)
        for layer in model.model.layers:
            layer.self_attn.v_proj.weight.mul_(8)
            layer.mlp.down_proj.weight.mul_(8)
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    """{name: folder}: the target, a good draft (a copy of it), a bad one and a random one."""
    root = tmp_path_factory.mktemp("models")
    _save_llama(root / "target", seed=0, layers=2, width=64, sharpness=60)
    _save_llama(root / "random", seed=1, layers=1, width=32, sharpness=60)
    # Right about half the time: the target with disturbed weights.
    model = LlamaForCausalLM.from_pretrained(root / "target")
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * parameter.std() * torch.randn_like(parameter))
    model.save_pretrained(root / "bad")
    return {name: root / name for name in ("target", "random", "bad")} | {"good": root / "target"}


@pytest.fixture(scope="session")
def target(model_folders) -> Target:
    decoder = load_decoder(model_folders["target"], dtype=torch.float32)
    return Target(
        decoder,
        TargetIdentity("sha256:target", "sha256:tokenizer", VOCABULARY, config=decoder.config),
        stop_tokens=frozenset({2}),
        device=Cpu(),
    )


class Harness:
    """An engine stepped by the test, and the progress it reported."""

    def __init__(self, engine: Engine, completions: list[Completion]) -> None:
        self.engine = engine
        self.completions = completions
        self.last: dict[str, Progress] = {}
        self.tokens: dict[str, list[int]] = {}

    def step(self) -> None:
        self._collect(self.engine.step())

    def cancel(self, request_id: str, *, answered: bool = False) -> None:
        self._collect(self.engine.cancel(request_id, answered=answered))

    def run(self, *requests: Request) -> dict[str, list[int]]:
        """Runs the requests to completion; returns the output tokens of each."""
        waiting = list(requests)
        while waiting or not self.engine.idle:
            while waiting and self.engine.counters().waiting < 4:
                self.engine.submit(waiting.pop(0))
            self.step()
        return {request.id: self.tokens[request.id] for request in requests}

    def _collect(self, progress: list[Progress]) -> None:
        for one in progress:
            self.tokens.setdefault(one.request_id, []).extend(one.token_ids)
            self.last[one.request_id] = one


@pytest.fixture(scope="session")
def make_draft(model_folders) -> Callable[[str, Engine], StandaloneDrafter]:
    def make(name: str, engine: Engine) -> StandaloneDrafter:
        decoder = load_decoder(model_folders[name], dtype=torch.float32)
        return StandaloneDrafter(name, f"sha256:{name}", decoder, engine.runner.drafter_room)

    return make


@pytest.fixture(scope="session")
def make_engine(target, make_draft) -> Callable[..., Harness]:
    def make(
        *, draft: str | None, length: int = 4, adaptive: bool = False, max_batch: int = MAX_BATCH
    ) -> Harness:
        completions: list[Completion] = []
        engine = new_engine(
            target,
            EngineSettings(
                max_batch=max_batch,
                max_context_tokens=256,
                max_speculation_length=length,
                adaptive_speculation=adaptive,
                prefill_tokens=16,
            ),
            on_completion=completions.append,
        )
        if draft is not None:
            engine.stage("stable", make_draft(draft, engine))
        return Harness(engine, completions)

    return make


@pytest.fixture(scope="session")
def pair_probs(target) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """(prompt, sampling) -> [V] and [V, V]: exactly, of the first token and of the second then."""

    @torch.inference_mode()
    def probs(prompt: tuple[int, ...], sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        one, every = SamplingRows([sampling], "cpu"), SamplingRows([sampling] * VOCABULARY, "cpu")
        places = torch.arange(len(prompt) + 1)
        hidden = target.decoder(torch.tensor([prompt]), places[None, :-1], causal_attend)
        first = one.probs(target.decoder.logits(hidden[:, -1:]))[0, 0]
        pairs = torch.tensor([[*prompt, token] for token in range(VOCABULARY)])
        hidden = target.decoder(pairs, places.expand(VOCABULARY, -1), causal_attend)
        return first, every.probs(target.decoder.logits(hidden[:, -1:]))[:, 0]

    return probs


@pytest.fixture(scope="session")
def p_value(pair_probs) -> Callable[..., float]:
    """Whether the first two tokens of many outputs to one prompt follow the exact distribution.

    Chi-square over the pairs expected often enough, the rest pooled into one.
    """

    def computed(
        outputs: dict[str, list[int]], prompt: tuple[int, ...], sampling: Sampling
    ) -> float:
        first, second = pair_probs(prompt, sampling)
        probs = (first[:, None] * second).flatten().double().numpy()
        draws = [tokens[0] * VOCABULARY + tokens[1] for tokens in outputs.values()]
        counts = np.bincount(draws, minlength=len(probs))
        assert counts[probs == 0].sum() == 0, "a token came out that sampling had cut away"
        expected = probs / probs.sum() * counts.sum()
        often = expected >= 5
        observed = np.append(counts[often], counts[~often].sum())
        wanted = np.append(expected[often], expected[~often].sum())
        if wanted[-1] < 1:
            observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
        assert len(wanted) > 1, "a single outcome proves nothing"
        return float(stats.chisquare(observed, wanted).pvalue)

    return computed
