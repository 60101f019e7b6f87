"""From settings to a native engine that is ready to run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from aurora_common.errors import InvalidInputError
from aurora_common.store.model_store import ModelStore
from aurora_inference.contract import Sampling
from aurora_inference.native.engine import Engine, EngineSettings
from aurora_inference.native.runner.cpu import Cpu
from aurora_inference.native.runner.cuda import Cuda
from aurora_inference.native.runner.device import Device
from aurora_inference.native.runner.target import Target
from aurora_inference.native.runner.torch_runner import TorchRunner
from aurora_inference.settings import GenerationConfig, Settings
from aurora_inference.trajectory.completion import Completion
from aurora_model.config import DecoderConfig
from aurora_model.device import device_description, memory_for, usable_device
from aurora_model.folder import ModelFolder, read_folder

logger = logging.getLogger(__name__)

# Keys and values are reserved for every request at once, so a long context must be requested.
_DEFAULT_CONTEXT_TOKENS = 4096
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_target(settings: Settings, store: ModelStore) -> tuple[Target, ModelFolder]:
    device = device_named(settings.device)
    model = read_folder(store.fetch(settings.target))
    with memory_for(f"the weights of the target {settings.target}"):
        return Target.load(model, dtype=_DTYPES[settings.dtype], device=device), model


def device_named(name: str) -> Device:
    """The device that `--device` names; raises AuroraErrors as `usable_device` does."""
    found = usable_device(name)
    description = device_description(found)
    logger.info("device", extra={"fields": {"device": description}})
    return Cpu() if found.type == "cpu" else Cuda(str(found), description)


def request_defaults(
    model: ModelFolder, generation_config: GenerationConfig
) -> tuple[Sampling, int | None]:
    """The sampling and max_tokens of requests that leave them out, as in vLLM; None: no bound.

    Logs them, and what vLLM would do differently.
    """
    if model.extra_stop_ids:
        logger.warning(
            "requests end at stop tokens of config.json that vLLM would ignore, because "
            "generation_config.json lacks them",
            extra={"fields": {"eos_token_id": sorted(model.extra_stop_ids)}},
        )
    if generation_config == "vllm":
        return Sampling(), None
    stated = {key: value for key, value in asdict(model.defaults).items() if value is not None}
    if stated:
        logger.info(
            "request defaults are those of generation_config.json; "
            "--generation-config vllm turns them off",
            extra={"fields": dict(stated)},
        )
    if model.unsupported:
        logger.warning(
            "values of generation_config.json that vLLM would apply to requests are not supported",
            extra={"fields": dict(model.unsupported)},
        )
    max_tokens = stated.pop("max_new_tokens", None)
    return Sampling(**stated), max_tokens


def new_engine(
    target: Target, settings: EngineSettings, *, on_completion: Callable[[Completion], None]
) -> Engine:
    """An engine with empty slots."""
    runner = TorchRunner(target, rows=settings.max_batch, capacity=settings.row_tokens)
    return Engine(runner, settings, on_completion=on_completion)


def load_engine(
    target: Target,
    settings: Settings,
    store: ModelStore,
    on_completion: Callable[[Completion], None],
) -> Engine:
    """The engine of this process, with `--draft` in its stable slot if given."""
    wanted = EngineSettings(
        max_batch=settings.max_batch,
        max_context_tokens=_context_tokens(settings, target.decoder.config),
        max_speculation_length=settings.max_speculation_length,
        adaptive_speculation=settings.adaptive_speculation,
    )
    fitting = _fitting(wanted, target, settings.gpu_memory_percent)
    with memory_for(f"the caches of {fitting.max_batch} requests"):
        engine = new_engine(target, fitting, on_completion=on_completion)
    if settings.draft is not None:
        folder = store.fetch(settings.draft)
        engine.stage("stable", engine.runner.load_drafter(folder, settings.draft_digest))
    return engine


def _fitting(wanted: EngineSettings, target: Target, memory_percent: int) -> EngineSettings:
    """With as many requests at once as the device's memory holds; the others wait."""
    rows = target.rows_within(
        wanted.max_batch, capacity=wanted.row_tokens, memory_percent=memory_percent
    )
    if rows < wanted.max_batch:
        logger.warning(
            "fewer requests run at once than --max-batch allows: the GPU's memory holds no more",
            extra={"fields": {"running": rows, "max_batch": wanted.max_batch}},
        )
    return replace(wanted, max_batch=rows)


def _context_tokens(settings: Settings, config: DecoderConfig) -> int:
    """What the user asked for, within what the target was made for."""
    wanted = settings.max_context_tokens
    if wanted is None:
        return min(config.context_tokens, _DEFAULT_CONTEXT_TOKENS)
    if wanted <= config.context_tokens:
        return wanted
    if config.sliding_window is not None and wanted <= config.max_position_embeddings:
        raise InvalidInputError(
            f"--max-context-tokens is {wanted}: allowed is at most {config.sliding_window}, the "
            "target's sliding_window, since layers that see only a part of the context are not "
            "supported"
        )
    raise InvalidInputError(
        f"--max-context-tokens is {wanted}; the target's own context is {config.context_tokens}"
    )
