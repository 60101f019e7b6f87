"""Validates requests and starts generations."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aurora_inference.contract import GenerationEngine, Request, Sampling
from aurora_inference.serving.client_header import label
from aurora_inference.serving.generation import Generation
from aurora_inference.serving.metrics import RequestMetrics
from aurora_inference.serving.prompt import PromptEncoder
from aurora_inference.serving.refusal import (
    ModelNotFoundError,
    RefusedParameterError,
    context_exceeded,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_MAX_STOPS = 4
_MIN_TEMPERATURE = 0.01
_NEUTRAL = Sampling()


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model as clients see it; `sample_percent` of its requests are recorded.

    `sampling` and `max_tokens` apply to requests that leave them out; `max_tokens` None: as many as
    the context holds.
    """

    name: str
    max_context_tokens: int
    vocab_size: int
    sample_percent: int
    created_at_seconds: int
    sampling: Sampling = _NEUTRAL
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """A request from either front; `max_tokens` None: the model's."""

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
        prompts = PromptEncoder(
            tokenizer, model_name=model.name, max_context_tokens=model.max_context_tokens
        )
        self.encode, self.encode_chat = prompts.encode, prompts.encode_chat
        self.max_prompt_bytes = prompts.max_bytes
        self._engine = engine
        self._tokenizer = tokenizer
        self._uniform = uniform

    def check_model(self, name: str) -> None:
        """Raises ModelNotFoundError unless `name` is the one served."""
        if name != self.model.name:
            raise ModelNotFoundError(name, served=self.model.name)

    def token_names(self, tokens: Sequence[int]) -> list[str]:
        """The tokens as the vocabulary writes them."""
        names: list[str] = self._tokenizer.convert_ids_to_tokens(list(tokens))
        return names

    def decode(self, tokens: Sequence[int]) -> str:
        """The tokens' text; raises RefusedParameterError for one outside the vocabulary."""
        self._check_tokens(tokens, param="tokens")
        text: str = self._tokenizer.backend_tokenizer.decode(
            list(tokens), skip_special_tokens=False
        )
        return text

    def start(self, question: Question, *, request_id: str) -> Generation:
        """Submits a request to the engine.

        Raises InvalidInputError naming the parameter, OverloadedError if the queue is full,
        UnavailableError while stopping.
        """
        request = Request(
            id=request_id,
            prompt_tokens=question.prompt_tokens,
            max_tokens=self._max_tokens(question),
            sampling=self._sampling(question.sampling),
            ignore_eos=question.ignore_eos,
            tenant=label("tenant", question.tenant),
            domain=label("domain", question.domain),
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
        self._check_tokens(prompt, param=param)
        room = self.model.max_context_tokens - len(prompt)
        wanted = question.max_tokens
        if wanted is None:
            wanted = max(min(room, self.model.max_tokens or room), 1)
        if wanted < 1:
            raise RefusedParameterError(
                f"max_tokens is {wanted}; it must be at least 1", param="max_tokens"
            )
        if wanted > room:
            raise context_exceeded(len(prompt), wanted, self.model.max_context_tokens, param=param)
        return wanted

    def _check_tokens(self, tokens: Sequence[int], *, param: str) -> None:
        for token in (min(tokens, default=0), max(tokens, default=0)):
            if not 0 <= token < self.model.vocab_size:
                raise RefusedParameterError(
                    f"the {param} has token {token}; allowed are 0 to {self.model.vocab_size - 1}",
                    param=param,
                )

    def _sampling(self, wanted: Sampling) -> Sampling:
        """As vLLM: a top_k of the whole vocabulary keeps every token, and a temperature is never
        so low that logits overflow."""
        temperature = wanted.temperature
        if 0 < temperature < _MIN_TEMPERATURE:
            temperature = _MIN_TEMPERATURE
        top_k = wanted.top_k if wanted.top_k < self.model.vocab_size else 0
        return replace(wanted, temperature=temperature, top_k=top_k)


def new_request_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def _checked_stops(stops: tuple[str, ...]) -> tuple[str, ...]:
    if len(stops) > _MAX_STOPS or "" in stops:
        raise RefusedParameterError(
            f"stop has {len(stops)} strings, {stops.count('')} of them empty; allowed are up to "
            f"{_MAX_STOPS} that are not empty",
            param="stop",
        )
    return stops
