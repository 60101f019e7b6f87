"""A stock vLLM with the plugin; tests that need it are skipped without its environment."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from stock import server
from stock.models import Models, made_models
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from aurora_model.draft import publish_draft
from aurora_model.draft.standalone import StandaloneDraft
from aurora_model.target import target_identity
from aurora_vllm.distribution import write_folder

_HERE = Path(__file__).parent
# The fixtures that start a vLLM.
_SERVERS = {"vllm", "unsupported", "two_nodes", "eagle3", "speculating", "aurora", "theirs"}
_LIMIT_SECONDS = 900
_PROMPT_TOKENS = 24
PLAIN_TOKENS = 160


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE not in item.path.parents or not _SERVERS & set(item.fixturenames):
            continue
        item.add_marker(pytest.mark.vllm)
        # vLLM starts within a minute, on a busy machine within ten.
        item.add_marker(pytest.mark.timeout(_LIMIT_SECONDS))
        if server.VARIABLE not in os.environ:
            reason = "vLLM has an environment of its own: make test-vllm"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def models(target_folder, tmp_path_factory) -> Models:
    tokenizer = PreTrainedTokenizerFast.from_pretrained(target_folder)
    return made_models(tmp_path_factory.mktemp("vllm"), tokenizer)


@pytest.fixture(scope="session")
def weak_draft(models, tmp_path_factory) -> Path:
    """Half of the target's layers, with noise: it has much to learn."""
    made = StandaloneDraft.load(models.start, dtype=torch.float32, device="cpu")
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * 1.0)
    store = tmp_path_factory.mktemp("drafts")
    return publish_draft(made, store, name="begin", target=target_identity(models.target))[0]


@pytest.fixture(scope="session")
def plugin(tmp_path_factory) -> Path:
    """The folder for PYTHONPATH."""
    return write_folder(tmp_path_factory.mktemp("plugin"))


@pytest.fixture(scope="session")
def vllm(models, plugin, tmp_path_factory) -> Iterator[server.Server]:
    log = tmp_path_factory.mktemp("log") / "vllm.txt"
    with started(models, [plugin], log) as running:
        yield running


@pytest.fixture
def unsupported(models, plugin, tmp_path) -> Iterator[server.Server]:
    """A vLLM that calls itself by a version that the plugin does not support."""
    information = tmp_path / "vllm-0.31.0+cpu.dist-info"
    information.mkdir()
    content = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0+cpu\n"
    (information / "METADATA").write_text(content)
    with started(models, [tmp_path, plugin], tmp_path / "vllm.txt") as running:
        yield running


@pytest.fixture
def two_nodes(models, plugin, tmp_path) -> Iterator[server.Server]:
    """A vLLM whose second half has a process of its own, as on another machine."""
    with started(models, [plugin], tmp_path / "vllm.txt", nodes=2) as running:
        yield running


def started(
    models: Models, python_path: list[Path], log: Path, *, nodes: int = 1
) -> AbstractContextManager[server.Server]:
    return server.serving(
        target=models.target,
        draft=models.start,
        store=models.store,
        python_path=python_path,
        log=log,
        nodes=nodes,
    )


@dataclass(frozen=True)
class Plain:
    """Prompts and what the target says to each without speculation, by Hugging Face's Llama."""

    prompts: list[list[int]]
    outputs: list[list[int]]


@pytest.fixture(scope="session")
def plain(models) -> Plain:
    model = LlamaForCausalLM.from_pretrained(models.target)
    draw = random.Random(0)
    vocabulary = model.config.vocab_size
    prompts = [[draw.randrange(2, vocabulary) for _ in range(_PROMPT_TOKENS)] for _ in range(16)]
    outputs = model.generate(
        torch.tensor(prompts),
        attention_mask=torch.ones(len(prompts), _PROMPT_TOKENS, dtype=torch.long),
        do_sample=False,
        max_new_tokens=PLAIN_TOKENS,
        min_new_tokens=PLAIN_TOKENS,
        eos_token_id=None,
        pad_token_id=1,
    )
    return Plain(prompts, outputs[:, _PROMPT_TOKENS:].tolist())
