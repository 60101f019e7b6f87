"""The prompts of a load: lines of a file, or words drawn with a seed."""

from __future__ import annotations

import random
from pathlib import Path

from aurora_client._errors import BadRequestError

# Common words, so that any tokenizer takes about one token for each.
_WORDS = (
    "the of and to in is for on that by this with you it not or be are from at as your all have "
    "new more an was we will home can us about if page my has search free but our one other do no "
    "information time they site he up may what which their news out use any there see only so his"
)


def prompts_of_file(path: Path, count: int) -> list[str]:
    """`count` prompts: the file's lines that hold something, again from the first if need be.

    Raises BadRequestError where there is none, OSError and UnicodeError where there is no text.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise BadRequestError(f"{path} holds no prompt; one a line is expected")
    return [lines[number % len(lines)] for number in range(count)]


def synthetic_prompts(count: int, *, words: int, seed: int) -> list[str]:
    """`count` prompts of `words` words each; the same for the same seed."""
    source, vocabulary = random.Random(seed), _WORDS.split()
    return [" ".join(source.choices(vocabulary, k=words)) for _ in range(count)]
