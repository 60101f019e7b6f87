"""The routes under /v1/aurora, which vLLM's --api-key guards like all of /v1."""

from __future__ import annotations

import asyncio
import logging
import os
from argparse import Namespace
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from aurora_vllm import VERSION
from aurora_vllm.refusal import RefusedError
from aurora_vllm.requirement import vllm_version

logger = logging.getLogger("vllm.aurora")

PREFIX = "/v1/aurora"
EXTENSION = "aurora_vllm.worker.AuroraWorker"
_POLL_SECONDS = 0.02
# Reading a large draft from a slow volume takes minutes; a step takes milliseconds.
_STAGE_SECONDS = 600.0
_CALL_SECONDS = 60.0

router = APIRouter(prefix=PREFIX, tags=["aurora"])


@dataclass(frozen=True, slots=True)
class Engine:
    """Calls the worker extension in every worker. `client`: vLLM's EngineClient."""

    client: Any
    guarded: bool

    async def call(self, verb: str, **arguments: Any) -> list[dict[str, Any]]:
        """The answers of the workers that have the draft; raises RefusedError if one refuses."""
        extension = self.client.vllm_config.parallel_config.worker_extension_cls
        if extension != EXTENSION:
            raise RefusedError(
                f"vLLM runs without --worker-extension-cls {EXTENSION}",
                status=501,
                code="unsupported_engine",
            )
        calls = self.client.collective_rpc("aurora_call", args=(verb, arguments))
        try:
            answers = await asyncio.wait_for(calls, _CALL_SECONDS)
        except asyncio.TimeoutError as error:  # noqa: UP041  (not TimeoutError in Python 3.10)
            raise RefusedError(
                f"the engine took more than {_CALL_SECONDS:.0f} s for a step",
                status=503,
                code="engine_busy",
            ) from error
        found = [answer for answer in answers if answer is not None]
        for answer in found:
            if "refusal" in answer:
                raise RefusedError(**answer["refusal"])
        return found


def guarded_engine(request: Request) -> Engine:
    engine: Engine = request.app.state.aurora_engine
    if not engine.guarded:
        raise RefusedError(
            f"{PREFIX} needs a key: start vLLM with --api-key or VLLM_API_KEY",
            status=403,
            code="no_key",
        )
    return engine


CalledEngine = Annotated[Engine, Depends(guarded_engine)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StageBody(_Body):
    """Without a path, the draft that vLLM started with."""

    digest: str
    name: Annotated[str, Field(max_length=253)]
    path: Annotated[str, Field(min_length=1)] | None = None


class UnstageBody(_Body):
    digest: str


class ActivateBody(_Body):
    digest: str
    reset: bool = False


class CaptureBody(_Body):
    max_bytes: Annotated[int, Field(gt=0, le=1 << 26)] = 1 << 20
    ack: int | None = None


@router.get("/status")
async def status(engine: CalledEngine) -> dict[str, Any]:
    answer = (await engine.call("status"))[0]
    model = engine.client.vllm_config.model_config
    return {
        "plugin": VERSION,
        "vllm": vllm_version(),
        "runner": "V1",
        **answer,
        "target": {
            "model": model.model,
            "max_model_len": model.max_model_len,
            "vocab_size": model.get_vocab_size(),
            "hidden_size": model.get_hidden_size(),
            "num_hidden_layers": model.get_total_num_hidden_layers(),
        },
    }


@router.post("/stage")
async def stage(body: StageBody, engine: CalledEngine) -> dict[str, Any]:
    deadline = asyncio.get_running_loop().time() + _STAGE_SECONDS
    try:
        answers = await engine.call("stage", **body.model_dump())
        while not all(answer["resident"] for answer in answers):
            if asyncio.get_running_loop().time() > deadline:
                raise RefusedError(
                    f"{body.path or body.digest} was not read within {_STAGE_SECONDS:.0f} s",
                    status=503,
                    code="slow_store",
                )
            await asyncio.sleep(_POLL_SECONDS)
            answers = await engine.call("staging", digest=body.digest)
    except RefusedError as error:
        if error.code not in ("busy", "occupied"):
            await _withdraw(engine, body.digest)
        raise
    load_ms = max(answer["load_ms"] for answer in answers)
    return {"digest": body.digest, "name": body.name, "load_ms": load_ms, "resident": True}


@router.post("/unstage")
async def unstage(body: UnstageBody, engine: CalledEngine) -> dict[str, Any]:
    return (await engine.call("unstage", digest=body.digest))[0]


@router.post("/activate")
async def activate(body: ActivateBody, engine: CalledEngine) -> dict[str, Any]:
    answers = await engine.call("activate", digest=body.digest, reset=body.reset)
    if body.reset:
        await engine.client.reset_prefix_cache(reset_running_requests=True)
    return {**answers[0], "flip_us": max(answer["flip_us"] for answer in answers)}


@router.post("/capture")
async def capture(body: CaptureBody, engine: CalledEngine) -> Response:
    answer = (await engine.call("capture", **body.model_dump()))[0]
    return Response(
        answer["payload"],
        media_type="application/octet-stream",
        headers={"x-aurora-batch": str(answer["batch"])},
    )


async def _withdraw(engine: Engine, digest: str) -> None:
    """Frees the place in the workers that took the draft if another refused it."""
    for _ in range(round(_CALL_SECONDS / _POLL_SECONDS)):
        try:
            await engine.call("unstage", digest=digest)
        except RefusedError as error:
            if error.code == "busy":
                await asyncio.sleep(_POLL_SECONDS)
                continue
        return


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": error.to_json()}, error.status)


class AuroraEndpoint:
    """vLLM's EndpointPlugin protocol."""

    name = "aurora"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        app.include_router(router)
        app.add_exception_handler(RefusedError, _refused)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        keys = args.api_key or [os.environ.get("VLLM_API_KEY")]
        state.aurora_engine = Engine(engine_client, guarded=any(keys))
        try:
            # The first call prepares the workers, before there are requests.
            await state.aurora_engine.call("status")
        except RefusedError as error:
            logger.warning(str(error))
