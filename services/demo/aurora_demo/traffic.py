"""The demo's prompts: beginnings of documents that no model was trained on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Protocol

from aurora_common.errors import NotFoundError
from aurora_demo.corpus import Domain, generated_documents

# Long enough to identify the domain, short enough that most of a request is output.
MIN_PROMPT_TOKENS = 24
MAX_PROMPT_TOKENS = 48
# Training documents are generated from small seeds.
_SEED_OFFSET = 1_000_000
_BROKEN_CHARACTER = "\ufffd"
# Gives up on a text that is nearly all training text.
_TRIES_PER_PROMPT = 50


class TextCodec(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


def fresh_prompts(
    domain: Domain,
    count: int,
    *,
    seed: int,
    codec: TextCodec,
    held_out: Sequence[str],
    seen: str,
) -> list[str]:
    """Distinct beginnings of a domain's documents, each 24 to 48 tokens long.

    `held_out`: the modules to draw `python` from; `seen`: the training text, in which no prompt may
    occur. The same for the same seed. Raises NotFoundError if there are not enough.
    """
    source = random.Random(f"{domain} traffic {seed}")
    documents = (
        _python_documents(source, held_out)
        if domain == "python"
        else generated_documents(domain, seed=_SEED_OFFSET + seed)
    )
    prompts: dict[str, None] = {}
    for _ in range(_TRIES_PER_PROMPT * count):
        if len(prompts) == count:
            return list(prompts)
        length = source.randint(MIN_PROMPT_TOKENS, MAX_PROMPT_TOKENS)
        # A token is shorter than 16 characters on average, so the rest need not be encoded.
        tokens = codec.encode(next(documents)[: 16 * MAX_PROMPT_TOKENS])[:length]
        prompt = codec.decode(tokens)
        if len(tokens) == length and _BROKEN_CHARACTER not in prompt and prompt not in seen:
            prompts[prompt] = None
    raise NotFoundError(f"found only {len(prompts)} of {count} fresh prompts of domain {domain}")


def _python_documents(source: random.Random, modules: Sequence[str]) -> Iterator[str]:
    """Modules from a random non-empty line on."""
    starts = [
        (number, offset)
        for number, module in enumerate(modules)
        for offset, line in _lines(module)
        if line.strip()
    ]
    while True:
        number, offset = source.choice(starts)
        yield modules[number][offset:]


def _lines(text: str) -> Iterator[tuple[int, str]]:
    offset = 0
    for line in text.splitlines(keepends=True):
        yield offset, line
        offset += len(line)
