"""A model folder is read whole: stop tokens, request defaults and the chat template."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from aurora_common.errors import InvalidInputError
from aurora_model.config import DecoderConfig
from aurora_model.draft import random_draft
from aurora_model.folder import GenerationDefaults, ModelFolder, read_folder
from aurora_model.weights import save_decoder


@pytest.fixture
def read(config: DecoderConfig, tmp_path: Path):
    """read(generation, eos=, eos_token=): the folder with this generation_config.json."""

    def folder(
        generation: object = None, *, eos: tuple[int, ...] = (), eos_token: str | None = None
    ) -> ModelFolder:
        tokenizer = Tokenizer(
            models.WordLevel({"<unk>": 0, "a": 1, "</s>": 2, "<end>": 3}, "<unk>")
        )
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos_token)
        fast.chat_template = "{{ messages[0].content }}!"
        fast.save_pretrained(tmp_path)
        save_decoder(random_draft(replace(config, eos_token_ids=eos), seed=0), tmp_path)
        if generation is not None:
            text = generation if isinstance(generation, str) else json.dumps(generation)
            (tmp_path / "generation_config.json").write_text(text)
        return read_folder(tmp_path)

    return folder


@pytest.mark.parametrize(
    ("generation", "eos", "eos_token", "expected"),
    [
        (None, (), None, set()),
        (None, (5,), None, {5}),
        ({"eos_token_id": 7}, (), None, {7}),
        ({"eos_token_id": [7, 8]}, (5, 6), "</s>", {2, 5, 6, 7, 8}),
        ({"eos_token_id": None}, (), "<end>", {3}),
    ],
)
def test_stop_tokens_are_those_of_all_files(read, generation, eos, eos_token, expected):
    assert read(generation, eos=eos, eos_token=eos_token).stop_token_ids == expected


def test_the_tokenizer_has_the_chat_template(read):
    messages = [{"role": "user", "content": "a"}]
    assert read().tokenizer.apply_chat_template(messages, tokenize=False) == "a!"


@pytest.mark.parametrize(
    ("generation", "expected"),
    [
        (None, GenerationDefaults()),
        ({"temperature": None, "do_sample": True}, GenerationDefaults()),
        (
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_new_tokens": 30},
            GenerationDefaults(0.6, 0.95, 20, 30),
        ),
        ({"temperature": 0}, GenerationDefaults(temperature=0.0)),
        ({"top_k": -1}, GenerationDefaults(top_k=0)),
        ({"top_k": 1 << 40}, GenerationDefaults(top_k=0)),
    ],
)
def test_sampling_values_become_defaults(read, generation, expected):
    assert read(generation).defaults == expected


def test_what_vllm_would_do_differently_is_known(read):
    folder = read(
        {"repetition_penalty": 1.1, "min_p": 0, "eos_token_id": 7}, eos=(2, 5, 7), eos_token="</s>"
    )
    assert folder.unsupported == {"repetition_penalty": 1.1}
    assert folder.extra_stop_ids == {5}


def test_without_a_generation_config_vllm_stops_at_the_same_tokens(read):
    assert read(eos=(2, 5)).extra_stop_ids == set()


@pytest.mark.parametrize(
    ("generation", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "must be a JSON object"),
        ({"eos_token_id": "</s>"}, "eos_token_id is '</s>': allowed is a token id, a list"),
        ({"eos_token_id": [1, -1]}, "eos_token_id is [1, -1]"),
        ({"temperature": "hot"}, "temperature is 'hot': allowed is a number from 0 to 100"),
        ({"temperature": -1}, "temperature is -1"),
        ({"top_p": 0}, "top_p is 0: allowed is a number above 0"),
        ({"top_p": 1.5}, "top_p is 1.5: allowed is a number above 0, at most 1"),
        ({"top_k": 0.5}, "top_k is 0.5: allowed is an integer of at least -1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: allowed is an integer of at least 1"),
    ],
)
def test_an_invalid_generation_config_is_named(read, tmp_path: Path, generation, complaint):
    with pytest.raises(InvalidInputError) as refusal:
        read(generation)
    assert str(tmp_path / "generation_config.json") in str(refusal.value)
    assert complaint in str(refusal.value)
