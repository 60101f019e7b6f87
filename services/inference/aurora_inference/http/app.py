"""The HTTP application: OpenAI's endpoints, vLLM's beside them, health and metrics."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.middleware.cors import CORSMiddleware

from aurora_common.errors import UnavailableError
from aurora_common.token import TokenFolder
from aurora_common.version import VERSION
from aurora_inference.http import openai_error, openapi
from aurora_inference.http.answer import answer
from aurora_inference.http.bearer import BearerAuthentication
from aurora_inference.http.body import MAX_BODY_BYTES, BodyBounds
from aurora_inference.http.head import HeadAsGet
from aurora_inference.http.openai_request import (
    BodyReader,
    ChatBody,
    ChatMessage,
    CompletionBody,
    DetokenizeBody,
    GenerationBody,
    TokenizeBody,
)
from aurora_inference.http.openai_response import EXPOSED_HEADERS, JsonObject, Reply
from aurora_inference.http.openapi import documented
from aurora_inference.http.request_id import HEADER as REQUEST_ID_HEADER
from aurora_inference.http.request_id import RequestId
from aurora_inference.serving import client_header
from aurora_inference.serving.gate import Gate, Serving
from aurora_inference.serving.metrics import EngineCollector, exposition
from aurora_inference.serving.refusal import RefusedParameterError
from aurora_inference.serving.text_service import Question, ServedModel, new_request_id

# A body's bytes beside its prompt.
_OTHER_BYTES = 1 << 20


def openai_app(
    gate: Gate[Serving],
    *,
    opt_out_header: str,
    tokens: TokenFolder | None = None,
    allowed_origins: Collection[str] = ("*",),
) -> FastAPI:
    """`opt_out_header` names the header that opts a request out of recording.

    With `tokens`, clients must send one of them. Browsers may call from `allowed_origins`.
    """
    app = FastAPI(title="Aurora", version=VERSION, description=openapi.API_DESCRIPTION)
    # The last one added is the outermost.
    app.add_middleware(BodyBounds, max_bytes=lambda: _max_body_bytes(gate))
    if tokens is not None:
        app.add_middleware(BearerAuthentication, tokens=tokens)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(allowed_origins),
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=[REQUEST_ID_HEADER, *EXPOSED_HEADERS],
    )
    app.add_middleware(HeadAsGet)
    app.add_middleware(RequestId)
    openai_error.install(app)
    openapi.install(app)
    reader = BodyReader()
    _add_generation(app, gate, reader, opt_out_header)
    _add_tokenization(app, gate, reader)
    _add_observation(app, gate)
    return app


def _add_generation(
    app: FastAPI, gate: Gate[Serving], reader: BodyReader, opt_out_header: str
) -> None:
    def question(
        body: CompletionBody | ChatBody,
        request: Request,
        prompt_tokens: tuple[int, ...],
        prompt_param: str,
    ) -> Question:
        return Question(
            prompt_tokens=prompt_tokens,
            max_tokens=body.wanted_tokens(),
            sampling=body.sampling(gate.serving.text.model.sampling),
            stop=body.stop,
            ignore_eos=bool(body.ignore_eos),
            tenant=request.headers.get(client_header.TENANT, ""),
            domain=request.headers.get(client_header.DOMAIN, ""),
            no_train=client_header.opted_out(request.headers.get(opt_out_header, "")),
            prompt_param=prompt_param,
        )

    @app.post("/v1/completions", **documented("CompletionBody", "Completion", streams=True))
    async def completions(request: Request) -> Response:
        serving, raw = gate.serving, await _raw(request)
        body = reader.read(CompletionBody, raw, context_tokens=_context_tokens(serving))
        serving.text.check_model(body.model)
        prompt = body.prompt
        tokens = await serving.text.encode(prompt) if isinstance(prompt, str) else prompt
        asked = question(body, request, tokens, "prompt")
        return await answer(serving.text, asked, body, _reply("completion", body), request)

    @app.post("/v1/chat/completions", **documented("ChatBody", "ChatCompletion", streams=True))
    async def chat_completions(request: Request) -> Response:
        serving, raw = gate.serving, await _raw(request)
        body = reader.read(ChatBody, raw, context_tokens=_context_tokens(serving))
        serving.text.check_model(body.model)
        tokens = await _chat_tokens(serving, body.messages)
        asked = question(body, request, tokens, "messages")
        return await answer(serving.text, asked, body, _reply("chat", body), request)

    @app.get("/v1/models", **documented(None, "ModelList"))
    async def models() -> JsonObject:
        return {"object": "list", "data": [_model(gate.serving.text.model)]}

    @app.get("/v1/models/{name:path}", **documented(None, "Model"))
    async def model(name: str) -> JsonObject:
        gate.serving.text.check_model(name)
        return _model(gate.serving.text.model)


def _add_tokenization(app: FastAPI, gate: Gate[Serving], reader: BodyReader) -> None:
    @app.post("/tokenize", **documented("TokenizeBody", "Tokenized"))
    async def tokenize(request: Request) -> JsonObject:
        serving, raw = gate.serving, await _raw(request)
        body = reader.read(TokenizeBody, raw, context_tokens=_context_tokens(serving))
        if body.model is not None:
            serving.text.check_model(body.model)
        if (body.prompt is None) == (body.messages is None):
            raise RefusedParameterError("send either prompt or messages", param="prompt")
        if body.prompt is not None:
            special = body.add_special_tokens is not False
            tokens = await serving.text.encode(body.prompt, add_special_tokens=special)
        else:
            tokens = await _chat_tokens(serving, body.messages or [])
        names = serving.text.token_names(tokens) if body.return_token_strs else None
        return {
            "count": len(tokens),
            "max_model_len": serving.text.model.max_context_tokens,
            "tokens": tokens,
            "token_strs": names,
        }

    @app.post("/detokenize", **documented("DetokenizeBody", "Detokenized"))
    async def detokenize(request: Request) -> JsonObject:
        serving, raw = gate.serving, await _raw(request)
        body = reader.read(DetokenizeBody, raw, context_tokens=_context_tokens(serving))
        if body.model is not None:
            serving.text.check_model(body.model)
        return {"prompt": serving.text.decode(body.tokens)}


def _add_observation(app: FastAPI, gate: Gate[Serving]) -> None:
    @app.get("/health", **documented(None, "Health"))
    async def health() -> JsonObject:
        if problem := gate.serving.engine.problem():
            raise UnavailableError(f"the engine fails: {problem}")
        return {"status": "serving"}

    @app.get("/version", **documented(None, "Version"))
    async def version() -> JsonObject:
        return {"version": VERSION}

    @app.get("/metrics", **documented(None, None))
    async def prometheus(request: Request) -> Response:
        serving = gate.serving
        engine = EngineCollector(
            model_name=serving.text.model.name,
            status=await serving.engine.status(),
            counters=await serving.engine.counters(),
            trajectories=serving.trajectories,
        )
        page = exposition(serving.text.metrics, engine, accept=request.headers.get("accept", ""))
        return Response(page.content, media_type=page.content_type)


def _max_body_bytes(gate: Gate[Serving]) -> int:
    """Enough for any prompt that the context holds, JSON's escapes and long lists included."""
    if not gate.is_open:
        return MAX_BODY_BYTES
    return min(3 * gate.serving.text.max_prompt_bytes + _OTHER_BYTES, MAX_BODY_BYTES)


async def _raw(request: Request) -> bytes:
    """The body; only what is declared as JSON, or a web page could send it without asking."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise RefusedParameterError(
            "the body must be a JSON object, sent with content-type: application/json",
            param="content-type",
        )
    return await request.body()


def _context_tokens(serving: Serving) -> int:
    return serving.text.model.max_context_tokens


async def _chat_tokens(serving: Serving, messages: list[ChatMessage]) -> tuple[int, ...]:
    return await serving.text.encode_chat([message.rendered() for message in messages])


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
