"""Streamed files are valid safetensors, and are read back however they are cut."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load

from aurora_common.errors import InvalidInputError
from aurora_trainer.replica.tensor_file import Arriving, Landing, pieces

TENSORS = {
    "b": torch.arange(6, dtype=torch.float32).view(2, 3),
    "a": torch.tensor([7]),
    "c": torch.rand(1 << 19),
}


def test_what_is_written_is_a_safetensors_file():
    parts = list(pieces(TENSORS))
    assert max(map(len, parts)) <= 1 << 20
    found = load(b"".join(parts))
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 22])
def test_it_lands_however_it_is_cut(size):
    tensors = {"b": TENSORS["b"], "a": TENSORS["a"]} if size < 1000 else TENSORS
    room = {name: torch.zeros_like(each) for name, each in tensors.items()}
    landing = Landing("weights", room)
    content = b"".join(pieces(tensors))
    for start in range(0, len(content), size):
        landing.add(content[start : start + size])
    landing.finish()
    for name, tensor in tensors.items():
        torch.testing.assert_close(room[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("end", [0, 5, 60, -1])
def test_truncated_files_are_not_accepted(end):
    landing = Landing("weights", TENSORS)
    landing.add(b"".join(pieces(TENSORS))[:end])
    with pytest.raises(InvalidInputError, match="the weights end before"):
        landing.finish()


def test_arriving_bytes_are_bounded():
    arriving = Arriving("tensors", 3)
    arriving.add(b"ab")
    assert arriving.content() == b"ab"
    with pytest.raises(InvalidInputError, match="the tensors have more bytes than allowed, 3"):
        arriving.add(b"cd")
