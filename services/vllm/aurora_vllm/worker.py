"""The worker extension: `--worker-extension-cls aurora_vllm.worker.AuroraWorker`."""

from __future__ import annotations

import logging
from typing import Any

from aurora_vllm.drafts import Drafts
from aurora_vllm.refusal import RefusedError
from aurora_vllm.requirement import problem_of

logger = logging.getLogger("vllm.aurora")

VERBS = ("status", "stage", "staging", "unstage", "activate", "capture")


class AuroraWorker:
    """Mixed into vLLM's worker, which the engine calls between two steps, on its own thread."""

    def aurora_call(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
        """Calls a verb of `Drafts`; None if this worker has no draft, as early pipeline stages.

        Never raises, since vLLM may end the engine on an exception: what is wrong comes back as
        `refusal`.
        """
        try:
            drafts = _drafts(self)
            assert verb in VERBS
            return None if drafts is None else getattr(drafts, verb)(**arguments)
        except RefusedError as error:
            return {"refusal": error.arguments()}
        except Exception as error:
            logger.exception("aurora: %s failed", verb)
            fault = RefusedError(f"{verb} failed: {error!r}", status=500, code="engine_fault")
            return {"refusal": fault.arguments()}


def _drafts(worker: Any) -> Drafts | None:
    """Made by the first call, since a mixin has no part in the worker's construction."""
    if "_aurora_drafts" not in vars(worker):
        if problem := problem_of(worker):
            raise RefusedError(problem, status=501, code="unsupported_engine")
        has_draft = hasattr(worker.model_runner, "drafter")
        worker._aurora_drafts = Drafts(worker) if has_draft else None
    drafts: Drafts | None = worker._aurora_drafts
    return drafts
