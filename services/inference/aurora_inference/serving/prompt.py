"""From text or messages to prompt tokens, without holding up what is being served."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from jinja2 import TemplateError

from aurora_inference.serving.refusal import RefusedParameterError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

T = TypeVar("T")

# Waking a thread takes longer than tokenising a shorter text.
_LONG_TEXT_BYTES = 16_384
_THREADS = max(1, (os.cpu_count() or 1) // 2)
# Templates drop what a model thought in earlier turns.
_END_OF_THOUGHT = "</think>"

ChatMessage = Mapping[str, str]


class PromptEncoder:
    """Long texts are tokenised on threads of their own, which do not hold the interpreter."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, *, model_name: str, max_context_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._model_name = model_name
        longest_token = max(len(token.encode()) for token in tokenizer.get_vocab())
        self.max_bytes = max_context_tokens * longest_token
        self._max_context_tokens = max_context_tokens
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="tokenise")

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> tuple[int, ...]:
        """A prompt's tokens, by default with the special tokens that the tokenizer adds.

        Raises RefusedParameterError if no tokenisation of the text could fit the context.
        """
        self._check_bytes(len(text.encode()), param="prompt")
        return await self._off_loop(
            lambda: self._encoded(text, add_special_tokens=add_special_tokens), len(text)
        )

    async def encode_chat(self, messages: Sequence[ChatMessage]) -> tuple[int, ...]:
        """A conversation's tokens, rendered with the model's chat template.

        Raises RefusedParameterError if there is no template, if it refuses the messages or leaves
        one of them out, or if the conversation could not fit the context.
        """
        if self._tokenizer.chat_template is None:
            raise RefusedParameterError(
                f"the model {self._model_name!r} has no chat template; use /v1/completions",
                param="messages",
                code="chat_template_missing",
            )
        size = sum(len(message["content"].encode()) for message in messages)
        self._check_bytes(size, param="messages")

        def encoded() -> tuple[int, ...]:
            # The template has added the special tokens.
            return self._encoded(self._rendered(messages), add_special_tokens=False)

        return await self._off_loop(encoded, size)

    def _rendered(self, messages: Sequence[ChatMessage]) -> str:
        """Where a template has no developer role, such messages are the system's."""
        try:
            return self._rendered_as_is(messages)
        except RefusedParameterError:
            renamed = [_as_system(message) for message in messages]
            if renamed == list(messages):
                raise
            return self._rendered_as_is(renamed)

    def _rendered_as_is(self, messages: Sequence[ChatMessage]) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            raise RefusedParameterError(
                f"the model's chat template refuses the messages: {error}", param="messages"
            ) from error
        place = 0
        for number, message in enumerate(messages):
            content = _kept(message)
            found = text.find(content, place)
            if found < 0:
                raise RefusedParameterError(
                    f"the model's chat template leaves out or changes message {number}, of role "
                    f"{message['role']!r}",
                    param="messages",
                )
            place = found + len(content)
        return str(text)

    def _encoded(self, text: str, *, add_special_tokens: bool) -> tuple[int, ...]:
        # Unlike `encode`, it releases the interpreter's lock, and it computes no offsets.
        encodings = self._tokenizer.backend_tokenizer.encode_batch_fast(
            [text], add_special_tokens=add_special_tokens
        )
        return tuple(encodings[0].ids)

    def _check_bytes(self, size: int, *, param: str) -> None:
        if size > self.max_bytes:
            raise RefusedParameterError(
                f"{param} has {size} bytes; this model's context holds "
                f"{self._max_context_tokens} tokens, at most {self.max_bytes} bytes",
                param=param,
                code="context_length_exceeded",
            )

    async def _off_loop(self, call: Callable[[], T], size: int) -> T:
        if size <= _LONG_TEXT_BYTES:
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _as_system(message: ChatMessage) -> ChatMessage:
    return {**message, "role": "system"} if message["role"] == "developer" else message


def _kept(message: ChatMessage) -> str:
    """The part of a message that every template keeps; many trim white space."""
    content = message["content"]
    if message["role"] == "assistant":
        content = content.rpartition(_END_OF_THOUGHT)[2]
    return content.strip()
