"""Temperature, top-k and top-p give exactly the distribution that they define."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_inference.contract import Sampling
from aurora_kernels.sampling import SamplingRows


def _naive(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """One row [V], straight from the definitions."""
    if sampling.temperature == 0:
        return torch.eye(len(logits))[logits.argmax()]
    scaled = (logits / sampling.temperature).double()
    if sampling.top_k:
        keep = scaled.argsort(descending=True)[: sampling.top_k]
        mask = torch.full_like(scaled, float("-inf"))
        mask[keep] = scaled[keep]
        scaled = mask
    probs = scaled.softmax(-1)
    if sampling.top_p < 1:
        order = probs.argsort(descending=True)
        kept, mass = [], 0.0
        for token in order.tolist():
            if mass >= sampling.top_p:
                break
            kept.append(token)
            mass += float(probs[token])
        mask = torch.zeros_like(probs)
        mask[kept] = probs[kept]
        probs = mask / mask.sum()
    return probs.float()


_samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 1.7]),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 3, 40, 1000]),
)


# No deadline: torch's first call on a busy machine may take longer than hypothesis allows.
@settings(deadline=None)
@given(st.lists(_samplings, min_size=1, max_size=4), st.integers(0, 1000))
def test_every_row_gets_its_own_distribution(rows: list[Sampling], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(rows), 2, 50, generator=generator)
    probs = SamplingRows(rows, "cpu").probs(logits)
    for row, sampling in enumerate(rows):
        for position in range(2):
            expected = _naive(logits[row, position], sampling)
            assert torch.allclose(probs[row, position], expected, atol=1e-5)


@settings(deadline=None)
@given(st.lists(_samplings, min_size=2, max_size=4), st.integers(0, 1000))
def test_a_rows_distribution_does_not_depend_on_its_neighbours(
    rows: list[Sampling], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(len(rows), 3, 300, generator=generator)
    together = SamplingRows(rows, "cpu").probs(logits)
    for row, sampling in enumerate(rows):
        for position in range(3):
            alone = SamplingRows([sampling], "cpu").probs(
                logits[row : row + 1, position : position + 1]
            )
            assert torch.equal(together[row, position], alone[0, 0])


def test_a_nucleus_wider_than_the_shortcut_is_exact() -> None:
    logits = torch.linspace(0, 1, 2000).view(1, 1, -1)  # nearly flat: hundreds of tokens are kept
    sampling = Sampling(temperature=1.0, top_p=0.8)
    probs = SamplingRows([sampling], "cpu").probs(logits)
    assert torch.allclose(probs[0, 0], _naive(logits[0, 0], sampling), atol=1e-6)
    assert int((probs > 0).sum()) > 1000


@pytest.mark.parametrize("temperature", [0.0, 1e-3])
def test_low_temperatures_are_finite(temperature: float) -> None:
    probs = SamplingRows([Sampling(temperature=temperature)], "cpu").probs(
        1e3 * torch.randn(1, 1, 30)
    )
    assert bool(probs.isfinite().all())
    assert float(probs.sum()) == pytest.approx(1.0)
