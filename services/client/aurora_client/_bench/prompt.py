"""Prompts of a load: lines of a file, or seeded random words."""

from __future__ import annotations

import random
from pathlib import Path

from aurora_client._errors import BadRequestError

# Common words: about one token each in any tokenizer.
_WORDS = (
    "the of and to in is for on that by this with you it not or be are from at as your all have "
    "new more an was we will home can us about if page my has search free but our one other do no "
    "information time they site he up may what which their news out use any there see only so his"
)


def prompts_of_file(path: Path, count: int) -> list[str]:
    """`count` prompts: the file's non-blank lines, repeated as needed.

    Raises BadRequestError if there are none, OSError or UnicodeError if the file is unreadable.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise BadRequestError(f"{path} contains no prompt; expected one per line")
    return [lines[number % len(lines)] for number in range(count)]


def synthetic_prompts(count: int, *, words: int, seed: int) -> list[str]:
    """`count` prompts of `words` words each, determined by `seed`."""
    source, vocabulary = random.Random(seed), _WORDS.split()
    return [" ".join(source.choices(vocabulary, k=words)) for _ in range(count)]
