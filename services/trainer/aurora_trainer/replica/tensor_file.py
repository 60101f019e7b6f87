"""Tensors as a safetensors file that is streamed in pieces.

A large file is never assembled as a whole: it is read from its tensors' memory and written into
other tensors' memory, because allocating a copy costs more than sending it.
https://huggingface.co/docs/safetensors: a header's size as 8 bytes, the header in JSON, the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from aurora_common.errors import InvalidInputError

_PIECE_BYTES = 1 << 20
_SIZE_BYTES = 8
_ALIGNMENT_BYTES = 8
# Upper bounds of a header: a name and three numbers for each tensor.
_HEADER_BYTES = 4096
_HEADER_BYTES_PER_TENSOR = 512
_DTYPES = {torch.float32: "F32", torch.int64: "I64"}


def pieces(tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """The file of these tensors, in order, in pieces that fit one message each.

    Tensors are float32 or int64, contiguous and on the CPU; they are read lazily.
    """
    header = json.dumps(_layout(tensors), separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT_BYTES)
    yield len(header).to_bytes(_SIZE_BYTES, "little") + header
    for tensor in tensors.values():
        content = _memory(tensor)
        for start in range(0, len(content), _PIECE_BYTES):
            yield content[start : start + _PIECE_BYTES].tobytes()


def read(what: str, content: bytes) -> dict[str, Tensor]:
    """The tensors of a file; raises InvalidInputError naming `what` it should be."""
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise InvalidInputError(f"the {what} are not a safetensors file: {error}") from error
    return tensors


def size_limit_bytes(tensor_bytes: int, tensor_count: int) -> int:
    """The largest size of a file of so many tensors."""
    return tensor_bytes + _HEADER_BYTES + tensor_count * _HEADER_BYTES_PER_TENSOR


class Arriving:
    """Collects a file's pieces; allocates only what has arrived."""

    def __init__(self, what: str, limit_bytes: int) -> None:
        self._what = what
        self._limit_bytes = limit_bytes
        self._content = bytearray()

    def add(self, piece: bytes) -> None:
        """Adds a piece; raises InvalidInputError beyond the limit."""
        if len(self._content) + len(piece) > self._limit_bytes:
            raise InvalidInputError(
                f"the {self._what} have more bytes than allowed, {self._limit_bytes}"
            )
        self._content += piece

    def content(self) -> bytes:
        """Everything that has arrived."""
        return bytes(self._content)


class Landing:
    """Writes a file's pieces into `tensors` as they arrive; it must hold exactly these."""

    def __init__(self, what: str, tensors: Mapping[str, Tensor]) -> None:
        self._what = what
        self._layout = _layout(tensors)
        self._head = bytearray()
        self._head_limit_bytes = size_limit_bytes(0, len(tensors))
        self._has_head = False
        self._places = [_memory(tensor) for tensor in tensors.values()]
        # Where the next byte goes: the offset into the first place.
        self._offset = 0

    def add(self, piece: bytes) -> None:
        """Adds a piece; raises InvalidInputError if the file is not one of these tensors."""
        rest = memoryview(piece)
        if not self._has_head:
            rest = self._after_head(piece)
        while len(rest):
            if not self._places:
                raise InvalidInputError(f"the {self._what} go on after their last tensor")
            place = self._places[0]
            count = min(len(rest), len(place) - self._offset)
            place[self._offset : self._offset + count] = np.frombuffer(rest[:count], np.uint8)
            rest = rest[count:]
            self._offset += count
            if self._offset == len(place):
                del self._places[0]
                self._offset = 0

    def finish(self) -> None:
        """Raises InvalidInputError if anything is missing."""
        if not self._has_head or self._places:
            raise InvalidInputError(f"the {self._what} end before their last tensor")

    def _after_head(self, piece: bytes) -> memoryview:
        self._head += piece
        if len(self._head) < _SIZE_BYTES:
            return memoryview(b"")
        size = int.from_bytes(self._head[:_SIZE_BYTES], "little")
        if size > self._head_limit_bytes:
            raise InvalidInputError(
                f"the {self._what} are not a safetensors file of the draft's parameters: their "
                f"header has {size} bytes, allowed are {self._head_limit_bytes}"
            )
        end = _SIZE_BYTES + size
        if len(self._head) < end:
            return memoryview(b"")
        self._check_layout(bytes(self._head[_SIZE_BYTES:end]))
        self._has_head = True
        rest = memoryview(bytes(self._head[end:]))
        self._head.clear()
        return rest

    def _check_layout(self, header: bytes) -> None:
        try:
            found: Any = json.loads(header)
        except (ValueError, RecursionError) as error:
            raise InvalidInputError(f"the {self._what} are not a safetensors file") from error
        if found == self._layout:
            return
        names = found.keys() if isinstance(found, dict) else ()
        wrong: list[str] = [
            name
            for name in {**self._layout, **dict.fromkeys(names)}
            if name not in self._layout or name not in names or found[name] != self._layout[name]
        ]
        raise InvalidInputError(
            f"the {self._what} do not fit the draft's config: {len(wrong)} tensors are missing, "
            f"unexpected, of another shape or dtype, or elsewhere, the first is {wrong[0][:100]!r}"
        )


def _layout(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, object]]:
    layout: dict[str, dict[str, object]] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        layout[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    return layout


def _memory(tensor: Tensor) -> NDArray[np.uint8]:
    flat: NDArray[np.uint8] = tensor.detach().view(-1).view(torch.uint8).numpy()
    return flat
