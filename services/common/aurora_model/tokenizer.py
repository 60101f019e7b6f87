"""The tokenizer stored beside a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aurora_common.errors import InvalidInputError
from aurora_model.target import TOKENIZER

# What decides which ids a text becomes, templates aside.
_DECIDING_PARTS = ("added_tokens", "normalizer", "pre_tokenizer", "model")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder; fetches nothing and runs no code from the folder.

    Raises InvalidInputError if it is missing or malformed.
    """
    if not (folder / TOKENIZER).is_file():
        raise InvalidInputError(f"{folder} has no {TOKENIZER}")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # tokenizers raises a bare Exception on a malformed file.
    except Exception as error:
        raise InvalidInputError(f"cannot read the tokenizer in {folder}: {error}") from error


def shared_token_count(draft: Path, target: Path) -> int:
    """How many ids the tokenizer of both folders has, from 0 to the highest.

    Raises InvalidInputError naming the files and the first part in which they differ. How a file
    is written, and what it adds around or cuts off a text, may differ.
    """
    ours, theirs = _tokenizer(draft / TOKENIZER), _tokenizer(target / TOKENIZER)
    our_parts, their_parts = (json.loads(each.to_str()) for each in (ours, theirs))
    for part in _DECIDING_PARTS:
        if _ids(our_parts[part]) != _ids(their_parts[part]):
            raise InvalidInputError(
                f"{draft / TOKENIZER} and {target / TOKENIZER} differ in {part} (with "
                f"{ours.get_vocab_size()} and {theirs.get_vocab_size()} tokens): allowed is a "
                "draft with the target's tokenizer"
            )
    return 1 + max(theirs.get_vocab().values(), default=-1)


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise InvalidInputError(f"{path.parent} has no {path.name}")
    try:
        return Tokenizer.from_file(str(path))
    # tokenizers raises a bare Exception on a malformed file.
    except Exception as error:
        raise InvalidInputError(f"cannot read {path}: {error}") from error


def _ids(part: Any) -> Any:
    """Of added tokens only which text has which id."""
    if not isinstance(part, list):
        return part
    return [(each["id"], each["content"]) for each in part]
