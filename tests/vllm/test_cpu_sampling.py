"""The expansion of sampling parameters that replaces vLLM's on CPUs."""

from __future__ import annotations

import pytest
import torch

from aurora_vllm.cpu_sampling import expand_batch_to_tokens


@pytest.mark.parametrize("dtype", [torch.float32, torch.int32, torch.int64])
def test_each_requests_value_is_repeated_for_its_tokens(dtype):
    values = torch.tensor([5, 0, 7, 9], dtype=dtype)
    ends = torch.tensor([2, 3, 3, 6], dtype=torch.int32)

    expanded = expand_batch_to_tokens(values, ends, 6, replace_from=0, replace_to=1)

    assert expanded.dtype == dtype
    assert expanded.tolist() == [5, 5, 1, 9, 9, 9]


def test_fractions_stay():
    ends = torch.tensor([1, 3])

    assert expand_batch_to_tokens(torch.tensor([0.25, 0.5]), ends, 3).tolist() == [0.25, 0.5, 0.5]
