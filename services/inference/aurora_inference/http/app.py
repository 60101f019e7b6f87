"""The HTTP application: OpenAI's endpoints, health and metrics."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from aurora_common.token import TokenFolder
from aurora_inference.http import openai_error
from aurora_inference.http.answer import answer
from aurora_inference.http.bearer import BearerAuthentication
from aurora_inference.http.body_limit import BodyLimit
from aurora_inference.http.openai_request import ChatBody, CompletionBody, GenerationBody
from aurora_inference.http.openai_response import JsonObject, Reply
from aurora_inference.serving.gate import Gate
from aurora_inference.serving.metrics import EngineCollector
from aurora_inference.serving.text_service import Question, ServedModel, new_request_id

_TENANT_HEADER = "x-aurora-tenant"
_DOMAIN_HEADER = "x-aurora-domain"
_REFUSALS = frozenset({"", "0", "false"})


def openai_app(gate: Gate, *, opt_out_header: str, tokens: TokenFolder | None = None) -> FastAPI:
    """`opt_out_header` names the header that opts a request out of recording.

    With `tokens`, clients must send one of them.
    """
    app = FastAPI(title="Aurora", openapi_url=None)
    app.add_middleware(BodyLimit)
    if tokens is not None:
        app.add_middleware(BearerAuthentication, tokens=tokens)
    openai_error.install(app)

    def asked(
        body: CompletionBody | ChatBody,
        request: Request,
        tokens: tuple[int, ...],
        prompt_param: str,
    ) -> Question:
        return Question(
            prompt_tokens=tokens,
            max_tokens=body.wanted_tokens(),
            sampling=body.sampling(),
            stop=body.stop,
            ignore_eos=body.ignore_eos,
            tenant=request.headers.get(_TENANT_HEADER, ""),
            domain=request.headers.get(_DOMAIN_HEADER, ""),
            no_train=_opted_out(request, opt_out_header),
            prompt_param=prompt_param,
        )

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, request: Request) -> Response:
        serving = gate.serving
        serving.text.check_model(body.model)
        prompt = body.prompt
        tokens = await serving.text.encode(prompt) if isinstance(prompt, str) else prompt
        question = asked(body, request, tokens, "prompt")
        return await answer(serving.text, question, body, _reply("completion", body), request)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, request: Request) -> Response:
        serving = gate.serving
        serving.text.check_model(body.model)
        messages = [{"role": one.role, "content": one.content} for one in body.messages]
        tokens = await serving.text.encode_chat(messages)
        question = asked(body, request, tokens, "messages")
        return await answer(serving.text, question, body, _reply("chat", body), request)

    @app.get("/v1/models")
    async def models() -> JsonObject:
        return {"object": "list", "data": [_model(gate.serving.text.model)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> JsonObject:
        gate.serving.text.check_model(name)
        return _model(gate.serving.text.model)

    @app.get("/health")
    async def health() -> JsonObject:
        # Goes through the engine's thread: a hung engine is unhealthy.
        await gate.serving.engine.counters()
        return {"status": "serving"}

    @app.get("/metrics")
    async def prometheus() -> Response:
        serving = gate.serving
        engine = EngineCollector(
            model_name=serving.text.model.name,
            status=await serving.engine.status(),
            counters=await serving.engine.counters(),
            trajectories=serving.trajectories,
        )
        page = serving.text.metrics.exposition() + engine.exposition()
        return Response(page, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return app


def _opted_out(request: Request, header: str) -> bool:
    """Any value but an explicit no opts out: if in doubt, nothing is recorded."""
    return request.headers.get(header, "").strip().lower() not in _REFUSALS


def _reply(kind: Literal["completion", "chat"], body: GenerationBody) -> Reply:
    prefix = "chatcmpl" if kind == "chat" else "cmpl"
    return Reply(kind, new_request_id(prefix), body.model, int(time.time()))


def _model(model: ServedModel) -> JsonObject:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_at_seconds,
        "owned_by": "aurora",
        "max_model_len": model.max_context_tokens,
    }
