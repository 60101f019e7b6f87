"""Loads the tokenizer stored beside a target's weights."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aurora_common.errors import InvalidInputError

TOKENIZER = "tokenizer.json"


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
