"""The Triton form captures what the reference does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aurora_kernels.capture import Captured, capture, reference


def triton_capture(logits: Tensor, count: int, **sizes) -> Captured:
    from aurora_kernels.capture import triton

    return triton.capture(logits, count, **sizes)


def same(ours: Captured, theirs: Captured) -> None:
    torch.testing.assert_close(ours.log_probs, theirs.log_probs)


@pytest.mark.parametrize(
    ("vocabulary", "count", "part"), [(1, 64, 8), (7, 3, 8), (41, 5, 16), (70, 32, 32), (9, 9, 8)]
)
def test_the_triton_form_equals_the_reference(vocabulary, count, part, device, poisoned):
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (5 * torch.randn(3, vocabulary, generator=generator)).to(device)
    expected = reference.capture(logits, count)
    with poisoned():
        found = triton_capture(logits, count, part=part)
    same(found, expected)
    assert torch.equal(found.ids, expected.ids)


def test_rows_without_an_order_or_without_some_tokens(device):
    logits = torch.zeros(3, 21)
    logits[1] = -torch.inf
    logits[1, 4] = -3.0
    logits[2, 5:] = -torch.inf
    logits[2] += 1e30
    logits = logits.to(device)
    found = triton_capture(logits, 4, part=8)
    same(found, reference.capture(logits, 4))
    assert found.ids[0].tolist() == [0, 1, 2, 3]
    assert found.ids[1, 0] == 4
    assert set(found.ids[2].tolist()) < set(range(5))


def test_logits_that_are_a_part_of_others(device):
    logits = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)).to(device)
    part = logits[::2, :33]
    same(triton_capture(part, 8, part=16), reference.capture(part, 8))


def test_the_cpu_takes_the_reference():
    logits = torch.randn(4, 90, generator=torch.Generator().manual_seed(0))
    for ours, theirs in zip(capture(logits, 64), reference.capture(logits, 64), strict=True):
        assert torch.equal(ours, theirs)
