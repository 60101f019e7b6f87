"""Picks the fastest form of each linear layer by timing it at the row counts in use."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aurora_kernels.linear.form import FORMS, Apply, Form

_ROUNDS = 5
# A round calls a form as often as this takes, which the clock and the scheduler do not blur; an
# output layer of 150,000 rows takes a tenth of a second each time.
_ROUND_SECONDS = 0.004
_MOST_CALLS = 8
_WORTH_MORE_THREADS = 0.8
# Where libraries change how they multiply; a single row is left to callers that must not have one.
_ROW_COUNTS = (2, 3, 4, 8, 16, 17, 32, 33, 64)


class Calibration:
    """Caches the fastest form for each shape, so that later drafts are packed without timing.

    `rows`: the activation row counts to optimise for, weighted equally. `lossy`: whether forms that
    round the weights further are allowed, as for drafts. `batch_invariant`: float32 weights get a
    form whose result for a row does not depend on how many rows there are, from two on, if this
    processor has one; those of other dtypes would be much slower.
    """

    def __init__(self, rows: Sequence[int], *, lossy: bool, batch_invariant: bool = False) -> None:
        self._rows = tuple(rows)
        self._lossy = lossy
        self._batch_invariant = batch_invariant
        self._fastest: dict[tuple[int, int, torch.dtype], tuple[Form, float]] = {}

    def form_for(self, weight: Tensor) -> Form:
        """The fastest form for a weight [out, in] of this shape and dtype."""
        return self._lookup(weight)[0]

    def seconds(self, weight: Tensor) -> float:
        """The time of the fastest form, summed over the row counts."""
        return self._lookup(weight)[1]

    @property
    def choices(self) -> dict[str, str]:
        """The chosen forms' names by `<out>x<in>`."""
        return {f"{key[0]}x{key[1]}": form.name for key, (form, _) in self._fastest.items()}

    def _lookup(self, weight: Tensor) -> tuple[Form, float]:
        key = (weight.shape[0], weight.shape[1], weight.dtype)
        if key not in self._fastest:
            self._fastest[key] = self._measured(weight)
        return self._fastest[key]

    def _measured(self, weight: Tensor) -> tuple[Form, float]:
        inputs = [torch.randn(rows, weight.shape[1]).to(weight.dtype) for rows in self._rows]
        candidates: list[tuple[Form, Apply]] = []
        for form in FORMS:
            if weight.dtype in form.dtypes and (self._lossy or not form.lossy):
                try:
                    apply = form.pack(weight, None)
                    apply(inputs[0])
                except RuntimeError:  # not supported by this processor
                    continue
                candidates.append((form, apply))
        if self._batch_invariant and weight.dtype == torch.float32:
            invariant = [each for each in candidates if is_batch_invariant(each[1], weight)]
            candidates = invariant or candidates
        # This round says how many calls the others make.
        best = {form.name: _seconds(apply, inputs, calls=1) for form, apply in candidates}
        calls = round(_ROUND_SECONDS / min(best.values()))
        calls = min(max(calls, 1), _MOST_CALLS)
        # Interleaved, best of several: a burst of load elsewhere must not decide.
        for _ in range(_ROUNDS):
            for form, apply in candidates:
                best[form.name] = min(best[form.name], _seconds(apply, inputs, calls=calls))
        fastest = min((form for form, _ in candidates), key=lambda form: best[form.name])
        return fastest, best[fastest.name]


def is_batch_invariant(apply: Apply, weight: Tensor) -> bool:
    """Whether a row's result is the same to the last bit among any number of rows, from two on."""
    x = torch.randn(max(_ROW_COUNTS), weight.shape[1]).to(weight.dtype)
    together = apply(x)
    return all(torch.equal(apply(x[:count]), together[:count]) for count in _ROW_COUNTS)


def _seconds(apply: Apply, inputs: Sequence[Tensor], *, calls: int) -> float:
    """How long one call for each of the inputs takes, on average over so many."""
    start = time.perf_counter()
    for x in inputs:
        for _ in range(calls):
            apply(x)
    return (time.perf_counter() - start) / calls


class PackedLinear(nn.Module):
    """A linear layer in a packed form; it has no parameters and cannot be trained."""

    def __init__(self, apply: Apply) -> None:
        super().__init__()
        self._apply_packed = apply

    def forward(self, x: Tensor) -> Tensor:
        return self._apply_packed(x)


def decode_threads(module: nn.Module, rows: Sequence[int]) -> int:
    """The number of threads at which the module's linear layers are fastest for `rows`.

    For small layers, waking a second thread costs more than it saves.
    """
    most = torch.get_num_threads()
    counts = sorted({1, most} | {2**power for power in range(1, most.bit_length())})
    weights = [layer.weight.detach() for layer in module.modules() if isinstance(layer, nn.Linear)]
    if any(weight.device.type != "cpu" for weight in weights):
        return most
    seconds: dict[int, float] = {}
    for count in counts:
        torch.set_num_threads(count)
        calibration = Calibration(rows, lossy=False)
        seconds[count] = sum(calibration.seconds(weight) for weight in weights)
    torch.set_num_threads(most)
    best = 1
    for count in counts:
        # Taking another core must pay off by more than noise.
        if seconds[count] < _WORTH_MORE_THREADS * seconds[best]:
            best = count
    return best


@torch.no_grad()
def pack_linears(module: nn.Module, calibration: Calibration) -> None:
    """Replaces every `nn.Linear` under `module` with its fastest form.

    Layers on devices other than the CPU are left unchanged.
    """
    # Only what stays: a layer's own weight is freed once it is packed, and the next one takes its
    # place in memory.
    parents = [each for each in module.modules() if not isinstance(each, nn.Linear)]
    for parent in parents:
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and layer.weight.device.type == "cpu":
                weight = layer.weight.detach()
                bias = None if layer.bias is None else layer.bias.detach()
                form = calibration.form_for(weight)
                setattr(parent, name, PackedLinear(form.pack(weight, bias)))
                del layer, weight
