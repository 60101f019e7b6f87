"""Which engines the plugin supports: it relies on what they keep in a worker."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from aurora_vllm import VERSION

SUPPORTED_FROM = (0, 32)
METHODS = ("draft_model", "eagle", "eagle3")
_NEEDED = (
    "_sample",
    "discard_request_mask",
    "drafter",
    "get_draft_model",
    "get_model",
    "input_batch",
    "requests",
)


def vllm_version() -> str:
    try:
        return version("vllm")
    except PackageNotFoundError:
        return "unknown"


def problem_of(worker: Any) -> str:
    """Why this engine is not supported, and what is; empty if it is."""
    reason = _problem(worker)
    if not reason:
        return ""
    return (
        f"aurora_vllm {VERSION} cannot work with this engine: {reason}; supported are vLLM "
        f"{'.'.join(map(str, SUPPORTED_FROM))} and later with its V1 model runner, "
        f"--speculative-config with method {', '.join(METHODS[:-1])} or {METHODS[-1]}, no "
        "quantized draft and no data parallelism"
    )


def _problem(worker: Any) -> str:
    found = vllm_version()
    if _release(found) < SUPPORTED_FROM:
        return f"it is vLLM {found}"
    config = worker.vllm_config
    if getattr(config, "use_v2_model_runner", False):
        return "it runs the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=0 chooses V1)"
    if config.parallel_config.data_parallel_size > 1:
        return f"its data parallel size is {config.parallel_config.data_parallel_size}"
    speculative = config.speculative_config
    if speculative is None:
        return "it runs without --speculative-config"
    if speculative.method not in METHODS:
        return f"its speculative method is {speculative.method}"
    return (
        "" if not _drafts(worker.model_runner) else _problem_of_runner(worker.model_runner, found)
    )


def _drafts(runner: Any) -> bool:
    """Whether this worker holds the draft: with pipeline parallelism only the last stage does."""
    return hasattr(runner, "drafter")


def _problem_of_runner(runner: Any, found: str) -> str:
    missing = [name for name in _NEEDED if not hasattr(runner, name)]
    if missing:
        return f"vLLM {found} keeps its state differently (no {', '.join(missing)})"
    for name, module in runner.get_draft_model().named_modules():
        method = type(getattr(module, "quant_method", None)).__name__
        if method != "NoneType" and not method.startswith("Unquantized"):
            return f"its draft is quantized ({name}: {method})"
    return ""


def _release(text: str) -> tuple[int, ...]:
    """Major and minor version; (0,) for what is none."""
    parts = text.split("+", 1)[0].split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else (0,)
