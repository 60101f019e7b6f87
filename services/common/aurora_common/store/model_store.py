"""The seam between a model's URI, opaque everywhere else, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class ModelStore(Protocol):
    def fetch(self, uri: str) -> Path:
        """The local folder with the model's files, which the caller must not change.

        Blocks for as long as a download takes. Raises InvalidInputError if the URI is malformed
        or no store serves its scheme, NotFoundError if the store knows that the model does not
        exist, and StorageError if the store cannot be read or the copy cannot be written.
        """
        ...


def model_uri(text: str) -> str:
    """`text` if it is a URI; otherwise the file:// URI of the folder that it names."""
    return text if "://" in text else Path(text).absolute().as_uri()
