"""A second copy of the draft in the engine's memory, and the exchange of its contents.

The only module that knows how vLLM keeps a model's weights.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from aurora_vllm.refusal import RefusedError, bad_checkpoint

# On CPUs a layer's weights are packed into the closure that computes with them.
_PACKED = "cpu_linear"


class DraftCopy:
    """Loads checkpoints beside the live draft and exchanges the contents of the two.

    Loading touches the copy alone. An exchange leaves every storage where it is, so CUDA graphs and
    compiled code stay valid; what the draft shares with the target is never written.
    """

    def __init__(self, runner: Any) -> None:
        self._device: torch.device = runner.device
        self._model_config = runner.speculative_config.draft_model_config
        self._live: nn.Module = runner.get_draft_model()
        self._target = {place(tensor) for _, tensor in weights(runner.get_model())}
        self._shared = {n for n, tensor in weights(self._live) if place(tensor) in self._target}
        self._vllm_config, built = _built(self._live, self._model_config, runner)
        self._copy: Any = built
        self._unprocessed = [
            (module, name, parameter, parameter.shape, parameter.dtype)
            for module in self._copy.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None
        ]
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._stream = None if self._device.type == "cpu" else torch.Stream(self._device)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Writes a checkpoint into the copy; for any thread, but for one at a time.

        Raises RefusedError if vLLM cannot load it, or if it has other values for what the live
        draft shares with the target.
        """
        with torch.no_grad(), self._beside():
            self._undo_processing()
            # Rotary tables are vLLM's for every model: the copy's may be the target's own.
            shared = [
                (name, tensor)
                for name, tensor in weights(self._copy)
                if name in self._shared and place(tensor) not in self._target
            ]
            for _, tensor in shared:
                tensor.fill_(float("nan"))
            try:
                self._copy.load_weights((name, self._pinned(t)) for name, t in tensors.items())
            except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise bad_checkpoint(f"vLLM cannot load it: {error}") from error
            live = dict(weights(self._live))
            for name, tensor in shared:
                loaded = not bool(tensor.isnan().all())
                if loaded and not torch.equal(tensor, live[name]):
                    raise bad_checkpoint(
                        f"its {name} differs from the target's, which the engine uses for both: "
                        "start the engine with a draft that has its own"
                    )
            if self._stream is not None:
                self._stream.synchronize()

    def process(self) -> None:
        """Brings loaded weights into the form that the engine runs; for the engine's thread."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.utils import process_weights_after_loading

        with torch.no_grad(), set_current_vllm_config(self._vllm_config):
            process_weights_after_loading(self._copy, self._model_config, self._device)
        self._pairs = self._paired()

    def exchange(self) -> float:
        """Makes the copy's draft the live one and the live one the copy's; returns the seconds.

        For the engine's thread, between two steps, after `process`.
        """
        self._synchronize()
        started = time.perf_counter()
        with torch.no_grad():
            for live, other in self._pairs:
                kept = live.clone()
                live.copy_(other)
                other.copy_(kept)
        self._synchronize()
        return time.perf_counter() - started

    def _paired(self) -> list[tuple[Tensor, Tensor]]:
        """Live and copied tensor of the same name, each storage once."""
        others = dict(weights(self._copy))
        pairs: dict[int, tuple[Tensor, Tensor]] = {}
        for name, live in weights(self._live):
            if name in self._shared:
                continue
            other = others.get(name)
            if other is None or (other.shape, other.dtype) != (live.shape, live.dtype):
                raise RefusedError(
                    f"vLLM keeps {name} in another form than that of the live draft",
                    status=501,
                    code="unsupported_engine",
                )
            known = pairs.setdefault(place(live), (live, other))
            if place(known[1]) != place(other) or place(other) in self._target:
                raise RefusedError(
                    f"vLLM shares the storage of {name} otherwise than in the live draft",
                    status=501,
                    code="unsupported_engine",
                )
        return [pair for pair in pairs.values() if place(pair[0]) != place(pair[1])]

    def _undo_processing(self) -> None:
        """Gives the copy parameters of the shapes that checkpoints are loaded into."""
        for module in self._copy.modules():
            vars(module).pop(_PACKED, None)
        for module, name, parameter, shape, dtype in self._unprocessed:
            if (
                parameter.shape != shape
                or parameter.dtype != dtype
                or (module._parameters[name] is not parameter)
            ):
                # New storage: on CPUs the packed form of the former may still refer to it.
                parameter.data = torch.empty(shape, dtype=dtype, device=self._device)
                module._parameters[name] = parameter

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._stream is not None else tensor

    def _beside(self) -> AbstractContextManager[Any]:
        """On a GPU, a stream of its own: neither it nor the engine's kernels wait."""
        return nullcontext() if self._stream is None else self._stream

    def _synchronize(self) -> None:
        if self._stream is not None:
            torch.accelerator.current_stream(self._device).synchronize()


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything in which vLLM keeps a model's weights, by name: parameters, buffers, and on CPUs
    what the functions hold that compute with packed weights."""
    for path, module in model.named_modules():
        held: dict[str, Any] = {**module._parameters, **module._buffers}
        function = vars(module).get(_PACKED)
        if isinstance(function, FunctionType):
            for number, cell in enumerate(function.__closure__ or ()):
                content = cell.cell_contents
                # oneDNN's handle keeps the address of its packed weights in a tensor.
                held[f"{_PACKED}.{number}"] = getattr(content, "handler_tensor", content)
        for name, tensor in held.items():
            if isinstance(tensor, Tensor) and tensor.numel() > 0:
                yield f"{path}.{name}", tensor


def place(tensor: Tensor) -> int:
    return tensor.data_ptr()


def _built(live: nn.Module, model_config: Any, runner: Any) -> tuple[Any, nn.Module]:
    """A draft like the live one, unloaded, of which the engine does not know; and its config."""
    from vllm.config import CompilationMode
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    # Every model that vLLM can compile keeps the config that it was made with.
    configs = (vars(module).get("vllm_config") for module in live.modules())
    config = copy.copy(next(filter(None, configs), None))
    if config is None:
        raise RefusedError(
            f"vLLM's {type(live).__name__} does not keep its config",
            status=501,
            code="unsupported_engine",
        )
    config.compilation_config = copy.copy(config.compilation_config)
    # The engine finds attention layers by name in this registry; the copy's must not be found.
    config.compilation_config.static_forward_context = {}
    config.compilation_config.mode = CompilationMode.NONE
    # As the proposers do: the names of a standalone draft begin with this.
    prefix = "draft_model" if runner.speculative_config.method == "draft_model" else ""
    with set_default_torch_dtype(model_config.dtype), runner.device:
        model = initialize_model(vllm_config=config, model_config=model_config, prefix=prefix)
    return config, model.eval()
