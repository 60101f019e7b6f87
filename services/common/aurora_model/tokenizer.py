"""The tokenizer that lies beside a target's weights."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aurora_common.errors import InvalidInputError

TOKENIZER = "tokenizer.json"


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder; nothing is fetched and no code of the folder is run.

    Raises InvalidInputError where there is none or it is malformed.
    """
    if not (folder / TOKENIZER).is_file():
        raise InvalidInputError(f"{folder} has no {TOKENIZER}")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    # tokenizers raises a bare Exception on a malformed file.
    except Exception as error:
        raise InvalidInputError(f"cannot read the tokenizer in {folder}: {error}") from error
