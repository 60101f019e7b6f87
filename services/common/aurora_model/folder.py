"""A Hugging Face model folder, apart from its weights: config, generation config, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from aurora_common.errors import InvalidInputError
from aurora_model.config import DecoderConfig, read_config
from aurora_model.field import Fields, read_object
from aurora_model.tokenizer import load_tokenizer

GENERATION_CONFIG = "generation_config.json"
# What vLLM takes over from the file and this version does not, with the values that change nothing.
_UNSUPPORTED = {"repetition_penalty": 1, "min_p": 0}


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """What generation_config.json sets for requests that leave it out; None: nothing.

    `top_k` 0 keeps every token. `max_new_tokens` bounds only requests without a bound of their own.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_new_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """What the files of a model folder say.

    `stop_token_ids`: those of config.json, generation_config.json and the tokenizer together.
    `tokenizer` has the chat template. `unsupported`: values of generation_config.json that vLLM
    would apply to requests. `extra_stop_ids`: those at which vLLM would not stop.
    """

    path: Path
    config: DecoderConfig
    tokenizer: PreTrainedTokenizerFast
    stop_token_ids: frozenset[int]
    defaults: GenerationDefaults
    unsupported: Mapping[str, object]
    extra_stop_ids: frozenset[int]


def read_folder(path: Path) -> ModelFolder:
    """Reads a model folder; raises InvalidInputError naming the file and what is allowed."""
    config = read_config(path)
    tokenizer = load_tokenizer(path)
    file = path / GENERATION_CONFIG
    content = read_object(file) if file.exists() else {}
    problems: list[str] = []
    fields = Fields(content, problems)
    defaults = _defaults(fields, content, config.vocab_size)
    known = set(fields.token_ids("eos_token_id"))
    if tokenizer.eos_token_id is not None:
        known.add(tokenizer.eos_token_id)
    if problems:
        lines = "\n".join(f"  - {problem}" for problem in problems)
        raise InvalidInputError(f"{file} is not valid:\n{lines}")
    return ModelFolder(
        path=path,
        config=config,
        tokenizer=tokenizer,
        stop_token_ids=frozenset({*config.eos_token_ids, *known}),
        defaults=defaults,
        unsupported={
            key: content[key]
            for key, neutral in _UNSUPPORTED.items()
            if content.get(key) not in (None, neutral)
        },
        # Without generation_config.json, vLLM takes those of config.json.
        extra_stop_ids=frozenset(config.eos_token_ids) - known if content else frozenset(),
    )


def _defaults(fields: Fields, content: Mapping[str, Any], vocab_size: int) -> GenerationDefaults:
    top_k, longest = content.get("top_k"), content.get("max_new_tokens")
    if top_k is not None:
        top_k = fields.integer("top_k", minimum=-1)
        # 0 and -1 keep every token, as do as many as there are.
        top_k = top_k if 0 < top_k < vocab_size else 0
    top_p = fields.optional_number("top_p")
    if top_p is not None and top_p > 1:
        fields.reject("top_p", "a number above 0, at most 1")
    return GenerationDefaults(
        temperature=fields.within("temperature", 0, 100),
        top_p=top_p,
        top_k=top_k,
        max_new_tokens=None if longest is None else fields.integer("max_new_tokens"),
    )
