"""A tiny random target with a tokenizer, and drafts for it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available() and find_spec("triton") is not None:
    # Triton decides when it is imported, and transformers imports it. Set for this process alone,
    # not for those that tests start.
    os.environ["TRITON_INTERPRET"] = "1"
    import triton

    del os.environ["TRITON_INTERPRET"]
    triton.knobs.runtime.interpret = True

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aurora_model.config import parse_config
from aurora_model.draft import publish_draft, random_draft, small_draft_config
from aurora_model.target import TargetIdentity, target_identity

pytest_plugins = ["support.fixtures"]

CONTEXT_TOKENS = 512
_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        ["hello world, 世界 and 🙂, select a from b where c"] * 3,
        trainers.BpeTrainer(
            vocab_size=320,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<s>", "</s>"],
            show_progress=False,
        ),
    )
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    wrapped.chat_template = _TEMPLATE
    return wrapped


@pytest.fixture(scope="session")
def target_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT_TOKENS,
            bos_token_id=0,
            eos_token_id=1,
        )
    )
    with torch.no_grad():
        # Random weights give flat distributions, in which rounding decides: sharpen them.
        model.lm_head.weight.mul_(40)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def identity(target_folder) -> TargetIdentity:
    return target_identity(target_folder)


@pytest.fixture(scope="session")
def publish(target_folder, identity, tmp_path_factory) -> Callable:
    """Publishes a random draft for the target: `publish(name, seed)` → folder, manifest."""
    root = tmp_path_factory.mktemp("drafts")
    content = json.loads((target_folder / "config.json").read_text())
    config = small_draft_config(parse_config(content, source="test"))

    def draft(name: str, seed: int):
        return publish_draft(random_draft(config, seed), root, name=name, target=identity)

    return draft
