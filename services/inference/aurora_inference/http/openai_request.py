"""Request bodies of OpenAI's API, parsed once into what the engine supports.

An unsupported parameter that would change the output is an error unless its value is neutral;
parameters that have no effect here are accepted and ignored.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)

from aurora_inference.contract import Sampling

_DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's

TokenIds = tuple[int, ...]


def _unicode(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"is not valid Unicode: a lone surrogate at {error.start}") from error
    return text


def _prompt(value: object) -> str | TokenIds:
    """A string or token ids, either also as the only element of a list."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], str | list):
        value = value[0]
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, list) and all(type(token) is int for token in value):
        return tuple(value)
    raise ValueError(
        "must be a string or a list of token ids; send several prompts as several requests"
    )


def _stop(value: object) -> tuple[str, ...]:
    match value:
        case None:
            return ()
        case str():
            return (_unicode(value),)
        case list() if len(value) <= 4 and all(isinstance(stop, str) for stop in value):
            return tuple(_unicode(stop) for stop in value)
    raise ValueError("must be a string or a list of up to 4 strings")


def _content(value: object) -> str:
    """A message's text, given as a string or as parts of type `text`."""
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, list) and all(_is_text_part(part) for part in value):
        return _unicode("".join(part["text"] for part in value))
    raise ValueError("must be a string or a list of parts of type 'text'")


def _is_text_part(part: object) -> bool:
    return (
        isinstance(part, dict)
        and set(part) == {"type", "text"}
        and part["type"] == "text"
        and isinstance(part["text"], str)
    )


def _only_neutral(value: object, info: ValidationInfo) -> object:
    """Accepts only neutral values of an unsupported parameter."""
    allowed = _NEUTRAL[info.field_name or ""]
    if value is None or any(value == one and type(value) in _alike(one) for one in allowed):
        return value
    choices = " or ".join(json.dumps(one) for one in (*allowed, None))
    raise ValueError(f"is not supported; leave it out or send {choices}")


def _alike(value: object) -> tuple[type, ...]:
    return (int, float) if type(value) in (int, float) else (type(value),)


# Unsupported parameters and their neutral values.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "min_tokens": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
}

# Any: an unsupported parameter has no type here; `_only_neutral` checks the value itself.
Neutral = Annotated[Any, AfterValidator(_only_neutral)]
Text = Annotated[str, AfterValidator(_unicode)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class StreamOptions(_Body):
    """`continuous_usage_stats` is vLLM's: usage in every chunk."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


class GenerationBody(_Body):
    """Parameters of both endpoints."""

    model: Text
    max_tokens: Annotated[int | None, Field(ge=1)] = None
    temperature: Annotated[float | None, Field(ge=0, le=100)] = None
    top_p: Annotated[float | None, Field(gt=0, le=1)] = None
    # vLLM's extension; 0 and -1: off.
    top_k: Annotated[int | None, Field(ge=-1)] = None
    seed: Annotated[int | None, Field(ge=-(1 << 63), lt=1 << 64)] = None
    stop: Annotated[tuple[str, ...], BeforeValidator(_stop)] = ()
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False  # vLLM's extension

    # No effect here.
    user: str | None = None
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    n: Neutral = None
    frequency_penalty: Neutral = None
    presence_penalty: Neutral = None
    repetition_penalty: Neutral = None
    min_p: Neutral = None
    min_tokens: Neutral = None
    logit_bias: Neutral = None
    logprobs: Neutral = None

    def sampling(self) -> Sampling:
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            seed=self.seed,
        )

    def usage_wanted(self) -> tuple[bool, bool]:
        """Whether a stream ends with the usage, and whether each chunk carries it."""
        options = self.stream_options or StreamOptions()
        return options.include_usage, options.include_usage and options.continuous_usage_stats


class CompletionBody(GenerationBody):
    """`POST /v1/completions`."""

    prompt: Annotated[str | TokenIds, BeforeValidator(_prompt)]
    best_of: Neutral = None
    echo: Neutral = None
    suffix: Neutral = None

    def wanted_tokens(self) -> int:
        return _DEFAULT_COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens


class ChatMessage(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content)]


class ChatBody(GenerationBody):
    """`POST /v1/chat/completions`."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int | None, Field(ge=1)] = None
    parallel_tool_calls: bool | None = None  # no effect without tools
    top_logprobs: Neutral = None
    response_format: Neutral = None
    modalities: Neutral = None
    tools: Neutral = None
    tool_choice: Neutral = None

    def wanted_tokens(self) -> int | None:
        """None: as many as the context holds."""
        if self.max_completion_tokens is not None:
            return self.max_completion_tokens
        return self.max_tokens


def supported_parameters() -> list[str]:
    """All parameters that have an effect, on either endpoint."""
    known = {*CompletionBody.model_fields, *ChatBody.model_fields}
    return sorted(known - _NEUTRAL.keys())
