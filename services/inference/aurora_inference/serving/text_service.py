"""Tokenises prompts, validates requests and starts generations."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from aurora_common.errors import InvalidInputError
from aurora_inference.contract import GenerationEngine, Request, Sampling
from aurora_inference.serving.generation import Generation
from aurora_inference.serving.metrics import RequestMetrics
from aurora_inference.serving.refusal import (
    ModelNotFoundError,
    RefusedParameterError,
    context_exceeded,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Waking a thread takes longer than tokenising a shorter text.
_LONG_TEXT_CHARACTERS = 16_384
_MAX_STOPS = 4
_LABEL_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model as clients see it; `sample_percent` of its requests are recorded."""

    name: str
    max_context_tokens: int
    vocab_size: int
    sample_percent: int
    created_at_seconds: int


@dataclass(frozen=True, slots=True)
class Question:
    """A request from either front; `max_tokens` None: as many as the context holds."""

    prompt_tokens: tuple[int, ...]
    max_tokens: int | None
    sampling: Sampling
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    tenant: str = ""
    domain: str = ""
    no_train: bool = False
    prompt_param: str = "prompt"


class TextService:
    """Runs on the event loop's thread."""

    def __init__(
        self,
        engine: GenerationEngine,
        tokenizer: PreTrainedTokenizerFast,
        model: ServedModel,
        metrics: RequestMetrics,
        *,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.model = model
        self.metrics = metrics
        self._engine = engine
        self._tokenizer = tokenizer
        self._uniform = uniform

    def check_model(self, name: str) -> None:
        """Raises ModelNotFoundError unless `name` is the one served."""
        if name != self.model.name:
            raise ModelNotFoundError(name, served=self.model.name)

    async def encode(self, prompt: str) -> tuple[int, ...]:
        """A prompt's tokens, including the special tokens that the tokenizer adds."""

        def encoded() -> tuple[int, ...]:
            return tuple(self._tokenizer.backend_tokenizer.encode(prompt).ids)

        return await _tokenised(encoded, len(prompt))

    async def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        """A conversation's tokens, rendered with the model's chat template."""
        if self._tokenizer.chat_template is None:
            raise RefusedParameterError(
                f"the model {self.model.name!r} has no chat template; use /v1/completions",
                param="messages",
                code="chat_template_missing",
            )

        def encoded() -> tuple[int, ...]:
            try:
                text = self._tokenizer.apply_chat_template(
                    list(messages), add_generation_prompt=True, tokenize=False
                )
            except TemplateError as error:
                raise RefusedParameterError(
                    f"the model's chat template refuses the messages: {error}", param="messages"
                ) from error
            # The template has added the special tokens.
            tokens = self._tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
            return tuple(tokens.ids)

        return await _tokenised(encoded, sum(len(message["content"]) for message in messages))

    def start(self, question: Question, *, request_id: str) -> Generation:
        """Submits a request to the engine.

        Raises InvalidInputError naming the parameter, OverloadedError if the queue is full,
        UnavailableError while stopping.
        """
        request = Request(
            id=request_id,
            prompt_tokens=question.prompt_tokens,
            max_tokens=self._max_tokens(question),
            sampling=question.sampling,
            ignore_eos=question.ignore_eos,
            tenant=_label("tenant", question.tenant),
            domain=_label("domain", question.domain),
            record=not question.no_train and self._uniform() * 100 < self.model.sample_percent,
        )
        return Generation(
            self._engine,
            self._tokenizer.backend_tokenizer,
            request,
            stop=_checked_stops(question.stop),
            metrics=self.metrics,
        )

    def _max_tokens(self, question: Question) -> int:
        """How many tokens to generate; raises InvalidInputError if the request cannot run."""
        prompt, param = question.prompt_tokens, question.prompt_param
        if not prompt:
            raise RefusedParameterError("the prompt has no tokens", param=param)
        unknown = next((token for token in prompt if not 0 <= token < self.model.vocab_size), None)
        if unknown is not None:
            raise RefusedParameterError(
                f"the prompt has token {unknown}; allowed are 0 to {self.model.vocab_size - 1}",
                param=param,
            )
        room = self.model.max_context_tokens - len(prompt)
        wanted = question.max_tokens if question.max_tokens is not None else max(room, 1)
        if wanted < 1:
            raise RefusedParameterError(
                f"max_tokens is {wanted}; it must be at least 1", param="max_tokens"
            )
        if wanted > room:
            raise context_exceeded(len(prompt), wanted, self.model.max_context_tokens, param=param)
        return wanted


def new_request_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


async def _tokenised(encoded: Callable[[], tuple[int, ...]], characters: int) -> tuple[int, ...]:
    """Tokenises a long text on another thread, so that other requests keep streaming."""
    if characters > _LONG_TEXT_CHARACTERS:
        return await asyncio.to_thread(encoded)
    return encoded()


def _checked_stops(stops: tuple[str, ...]) -> tuple[str, ...]:
    if len(stops) > _MAX_STOPS or "" in stops:
        raise RefusedParameterError(
            f"stop has {len(stops)} strings, {stops.count('')} of them empty; allowed are up to "
            f"{_MAX_STOPS} that are not empty",
            param="stop",
        )
    return stops


def _label(name: str, value: str) -> str:
    if len(value) > _LABEL_CHARACTERS:
        raise InvalidInputError(
            f"the {name} has {len(value)} characters; allowed are up to {_LABEL_CHARACTERS}"
        )
    return value
