"""Every form of a linear layer computes the same layer."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from aurora_kernels.linear import FORMS, Calibration, decode_threads, pack_linears
from aurora_kernels.linear.calibration import is_batch_invariant
from aurora_kernels.linear.form import Form, reference

_TOLERANCE = {"plain": 0.0, "onednn": 2e-2, "fbgemm-fp16": 2e-2, "fbgemm-int8": 0.2}


def _packed(form: Form, weight: torch.Tensor, bias: torch.Tensor | None):
    try:
        return form.pack(weight, bias)
    except RuntimeError:
        assert form.name != "plain", "every processor can compute the plain form"
        return None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 5), (7, 64, 33), (2, 256, 130)])
def test_form_equals_reference(form: Form, bias: bool, shape: tuple[int, int, int]) -> None:
    rows, width, outputs = shape
    torch.manual_seed(0)
    for dtype in sorted(form.dtypes, key=str):
        weight = (torch.randn(outputs, width) / width**0.5).to(dtype)
        offset = torch.randn(outputs).to(dtype) if bias else None
        apply = _packed(form, weight, offset)
        if apply is None:
            continue
        for x in (torch.randn(rows, width), torch.randn(2, rows, width)):
            expected = reference(weight, offset)(x.to(dtype)).float()
            actual = apply(x.to(dtype)).float()
            assert actual.shape == expected.shape
            assert (actual - expected).abs().max() <= _TOLERANCE[form.name] * 2


def test_a_lossless_calibration_never_rounds_the_weights() -> None:
    calibration = Calibration((1, 5), lossy=False)
    form = calibration.form_for(torch.randn(64, 32))
    assert not form.lossy


def test_a_batch_invariant_calibration_rounds_a_row_alike_among_any_number() -> None:
    weight = torch.randn(96, 1536)
    if not any(is_batch_invariant(form.pack(weight, None), weight) for form in FORMS[:2]):
        pytest.skip("this processor has no batch-invariant form")
    form = Calibration((1, 5), lossy=False, batch_invariant=True).form_for(weight)
    apply, x = form.pack(weight, None), torch.randn(100, 1536)
    together = apply(x)
    for count in range(2, 100):
        assert torch.equal(apply(x[:count]), together[:count])


def test_a_form_that_looks_at_its_neighbours_is_not_batch_invariant() -> None:
    weight = torch.randn(8, 8)
    assert is_batch_invariant(lambda x: x * 2, weight)
    assert not is_batch_invariant(lambda x: x * (2 if len(x) < 33 else 3), weight)


def test_a_shape_is_measured_once() -> None:
    calibration = Calibration((1,), lossy=True)
    weight = torch.randn(48, 16)
    assert calibration.form_for(weight) is calibration.form_for(torch.randn(48, 16))
    assert list(calibration.choices) == ["48x16"]


def test_packing_replaces_every_linear_layer_and_keeps_the_function() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Sequential(nn.Linear(64, 16)))
    x = torch.randn(5, 32)
    expected = module(x)
    pack_linears(module, Calibration((1, 5), lossy=False))
    assert not any(isinstance(layer, nn.Linear) for layer in module.modules())
    assert torch.allclose(module(x), expected, atol=1e-5)


def test_thread_count_is_available_and_the_setting_is_unchanged() -> None:
    before = torch.get_num_threads()
    assert 1 <= decode_threads(nn.Linear(32, 32), (1, 2)) <= before
    assert torch.get_num_threads() == before


def test_a_layers_weight_is_freed_before_the_next_one_is_packed() -> None:
    module = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4)) for _ in range(3)))
    layers = [weakref.ref(each) for each in module.modules() if isinstance(each, nn.Linear)]
    held = []

    class Copying(Calibration):
        def form_for(self, weight: torch.Tensor) -> Form:
            held.append(sum(layer() is not None for layer in layers))
            return Form(
                "copy", lambda weight, bias: reference(weight.clone(), bias), False, frozenset()
            )

    pack_linears(module, Copying((1,), lossy=False))

    assert held == [3, 2, 1]
