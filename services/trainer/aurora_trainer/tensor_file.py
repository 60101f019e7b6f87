"""Tensors as the bytes of a safetensors file, which travel in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from aurora_common.errors import InvalidInputError

_PIECE_BYTES = 4 << 20
# What a file has besides its tensors, at most: a name and three numbers for each.
_HEADER_BYTES = 4096
_HEADER_BYTES_PER_TENSOR = 512


def written(tensors: Mapping[str, Tensor]) -> bytes:
    """The file of these tensors."""
    content: bytes = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return content


def read(what: str, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file; raises InvalidInputError naming `what` it is."""
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise InvalidInputError(f"the {what} are not a safetensors file: {error}") from error
    return tensors


def pieces(content: bytes) -> Iterator[bytes]:
    """The content in parts that are fit for one message each."""
    for start in range(0, len(content), _PIECE_BYTES):
        yield content[start : start + _PIECE_BYTES]


def size_limit_bytes(tensor_bytes: int, tensor_count: int) -> int:
    """What a file of so many tensors takes at most."""
    return tensor_bytes + _HEADER_BYTES + tensor_count * _HEADER_BYTES_PER_TENSOR


class Arriving:
    """A file of which pieces arrive; takes memory for no more than has arrived."""

    def __init__(self, what: str, limit_bytes: int) -> None:
        self._what = what
        self._limit_bytes = limit_bytes
        self._arrived_bytes = 0
        self._pieces: list[bytes] = []

    def add(self, piece: bytes) -> None:
        """Raises InvalidInputError where it is more than the limit."""
        self._arrived_bytes += len(piece)
        if self._arrived_bytes > self._limit_bytes:
            raise InvalidInputError(
                f"the {self._what} have more bytes than allowed, {self._limit_bytes}"
            )
        self._pieces.append(piece)

    def taken(self) -> bytes:
        """All that has arrived, which is then forgotten."""
        content = b"".join(self._pieces)
        self._pieces.clear()
        return content
