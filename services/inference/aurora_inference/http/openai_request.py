"""Request bodies of OpenAI's API, parsed once into what the engine supports.

A parameter that would change the output but is not supported is an error unless its value is
neutral. Whatever else is sent, hints and unknown names, is ignored.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import pydantic_core
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from aurora_inference.contract import Sampling

logger = logging.getLogger(__name__)

_DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
# Larger bodies are not looked through for unknown names, which means parsing them twice.
_SCANNED_BYTES = 1 << 16
_MAX_NAMES_LOGGED = 100
_NAME = re.compile(r"\w{1,40}", re.ASCII)

TokenIds = tuple[int, ...]


def _prompt(value: object, info: ValidationInfo) -> str | TokenIds:
    """A string or token ids, either also as the only element of a list."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        context_tokens = _context_tokens(info)
        if len(value) > context_tokens:
            raise ValueError(
                f"has {len(value)} elements; this model's context holds {context_tokens} tokens"
            )
        if all(type(token) is int for token in value):
            return tuple(value)
    raise ValueError(
        "must be a string or a list of token ids; send several prompts as several requests"
    )


def _context_tokens(info: ValidationInfo) -> int:
    assert isinstance(info.context, int)
    return info.context


def _stop(value: object) -> tuple[str, ...]:
    match value:
        case None:
            return ()
        case str():
            return (value,)
        case list() if len(value) <= 4 and all(isinstance(stop, str) for stop in value):
            return tuple(value)
    raise ValueError("must be a string or a list of up to 4 strings")


def _content(value: object) -> str:
    """A message's text, given as a string or as parts of type `text`."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(_is_text_part(part) for part in value):
        return "".join(part["text"] for part in value)
    raise ValueError("must be a string or a list of parts of type 'text'")


def _is_text_part(part: object) -> bool:
    return (
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def _few_messages(value: object, info: ValidationInfo) -> object:
    """Each message takes a token at least, so a longer list need not be looked at."""
    if isinstance(value, list) and len(value) > _context_tokens(info):
        raise ValueError(
            f"has {len(value)} elements; this model's context holds {_context_tokens(info)} tokens"
        )
    return value


def _only_neutral(value: object, info: ValidationInfo) -> object:
    """Accepts only neutral values of an unsupported parameter."""
    allowed = _NEUTRAL[info.field_name or ""]
    if value is None or any(value == one and type(value) in _alike(one) for one in allowed):
        return value
    choices = " or ".join(json.dumps(one) for one in (*allowed, None))
    raise ValueError(f"is not supported; leave it out or send {choices}")


def _alike(value: object) -> tuple[type, ...]:
    return (int, float) if type(value) in (int, float) else (type(value),)


# Unsupported parameters, OpenAI's and vLLM's, and their neutral values.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "use_beam_search": (False,),
    "logit_bias": ({},),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "stop_token_ids": ([],),
    "include_stop_str_in_output": (False,),
    "skip_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_choice": (),
    "guided_grammar": (),
    "modalities": (["text"],),
    "audio": (),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "web_search_options": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
    # Of a message; the last is also a parameter.
    "refusal": ("",),
    "tool_calls": ([],),
    "function_call": ("none", "auto"),
}
# Hints that change nothing here; all other unknown names are logged once.
_HINTS = frozenset(
    {
        "user",
        "store",
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
        "reasoning_effort",
        "verbosity",
        "prediction",
        "priority",
        "request_id",
        "cache_salt",
    }
)

# Any: an unsupported parameter has no type here; `_only_neutral` checks the value itself.
Neutral = Annotated[Any, AfterValidator(_only_neutral)]


def _schema_of_neutral(schema: dict[str, Any]) -> None:
    """What an unsupported parameter may be, in the published schema."""
    for name, described in schema["properties"].items():
        if name in _NEUTRAL:
            described["enum"] = [*_NEUTRAL[name], None]


class _Body(BaseModel):
    model_config = ConfigDict(
        extra="ignore",
        strict=True,
        allow_inf_nan=False,
        frozen=True,
        json_schema_extra=_schema_of_neutral,
    )


class StreamOptions(_Body):
    """`continuous_usage_stats` is vLLM's: usage in every chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationBody(_Body):
    """Parameters of both endpoints."""

    model: str
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=100)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    # vLLM's extension; 0 and -1: off.
    top_k: Annotated[int | None, Field(ge=-1)] = None
    seed: Annotated[int | None, Field(ge=-(1 << 63), lt=1 << 64)] = None
    stop: Annotated[
        tuple[str, ...],
        BeforeValidator(
            _stop,
            json_schema_input_type=str
            | Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=4)]
            | None,
        ),
    ] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = None  # vLLM's extension

    n: Neutral = None
    frequency_penalty: Neutral = None
    presence_penalty: Neutral = None
    repetition_penalty: Neutral = None
    length_penalty: Neutral = None
    min_p: Neutral = None
    min_tokens: Neutral = None
    use_beam_search: Neutral = None
    logit_bias: Neutral = None
    allowed_token_ids: Neutral = None
    bad_words: Neutral = None
    stop_token_ids: Neutral = None
    include_stop_str_in_output: Neutral = None
    skip_special_tokens: Neutral = None
    truncate_prompt_tokens: Neutral = None
    logprobs: Neutral = None
    prompt_logprobs: Neutral = None
    return_token_ids: Neutral = None
    response_format: Neutral = None
    structured_outputs: Neutral = None
    guided_json: Neutral = None
    guided_regex: Neutral = None
    guided_choice: Neutral = None
    guided_grammar: Neutral = None

    def sampling(self, default: Sampling) -> Sampling:
        """The request's sampling; what it leaves out is as in `default`."""
        return Sampling(
            temperature=default.temperature if self.temperature is None else self.temperature,
            top_p=default.top_p if self.top_p is None else self.top_p,
            top_k=default.top_k if self.top_k is None else max(self.top_k, 0),
            seed=self.seed,
        )

    def usage_wanted(self) -> tuple[bool, bool]:
        """Whether a stream ends with the usage, and whether each chunk carries it."""
        options = self.stream_options or StreamOptions()
        wanted = bool(options.include_usage)
        return wanted, wanted and bool(options.continuous_usage_stats)


_PROMPT_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
    ]
}


class CompletionBody(GenerationBody):
    """`POST /v1/completions`."""

    prompt: Annotated[str | TokenIds, PlainValidator(_prompt), WithJsonSchema(_PROMPT_SCHEMA)]
    best_of: Neutral = None
    echo: Neutral = None
    suffix: Neutral = None

    def wanted_tokens(self) -> int:
        return _DEFAULT_COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens


class TextPart(_Body):
    """A part of a message; there is only text."""

    type: Literal["text"]
    text: str


class ChatMessage(_Body):
    """`name` is handed to the chat template; what the server itself says is taken back."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content, json_schema_input_type=str | list[TextPart])]
    name: str | None = None
    refusal: Neutral = None
    audio: Neutral = None
    function_call: Neutral = None
    tool_calls: Neutral = None

    def rendered(self) -> dict[str, str]:
        """As chat templates expect it."""
        named = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": self.content, **named}


# One bad message is enough: a list may have many.
Messages = Annotated[
    list[ChatMessage], Field(min_length=1, fail_fast=True), BeforeValidator(_few_messages)
]


class ChatBody(GenerationBody):
    """`POST /v1/chat/completions`."""

    messages: Messages
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    top_logprobs: Neutral = None
    modalities: Neutral = None
    audio: Neutral = None
    tools: Neutral = None
    tool_choice: Neutral = None
    functions: Neutral = None
    function_call: Neutral = None
    web_search_options: Neutral = None
    chat_template: Neutral = None
    chat_template_kwargs: Neutral = None
    add_generation_prompt: Neutral = None
    continue_final_message: Neutral = None

    def wanted_tokens(self) -> int | None:
        """None: the model's default."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens


class TokenizeBody(_Body):
    """`POST /tokenize`, vLLM's: a prompt, or messages as the chat template renders them."""

    model: str | None = None
    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeBody(_Body):
    """`POST /detokenize`, vLLM's."""

    model: str | None = None
    tokens: Annotated[list[int], Field(fail_fast=True)]


Body = TypeVar("Body", bound=_Body)


class BodyReader:
    """Parses bodies; names that are not known are logged, each once."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def read(self, kind: type[Body], body: bytes, *, context_tokens: int) -> Body:
        """Raises pydantic's ValidationError.

        Parsed from the bytes at once: what is unknown never becomes a Python object.
        """
        parsed = kind.model_validate_json(body, context=context_tokens)
        if len(body) <= _SCANNED_BYTES:
            unknown = pydantic_core.from_json(body).keys() - kind.model_fields.keys() - _HINTS
            # Anything else may be text that was sent in the wrong place.
            self._log({name for name in unknown if _NAME.fullmatch(name)} - self._logged)
        return parsed

    def _log(self, names: set[str]) -> None:
        if names and len(self._logged) < _MAX_NAMES_LOGGED:
            self._logged |= names
            logger.info("unknown parameters ignored", extra={"fields": {"names": sorted(names)}})
