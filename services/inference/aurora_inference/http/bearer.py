"""Bearer authentication of the HTTP endpoints."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from aurora_common.admission import bearer_token
from aurora_common.token import TokenFolder
from aurora_inference.http.error_body import error_body

# Probes and scrapers have no token; these expose no prompts.
_OPEN = frozenset({"/health", "/metrics"})


class BearerAuthentication:
    """ASGI middleware: 401 without a valid token, except for health and metrics."""

    def __init__(self, app: ASGIApp, tokens: TokenFolder) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            header = Headers(scope=scope).get("authorization", "")
            if not self._tokens.admits(bearer_token(header)):
                message = "no valid token; send the header Authorization: Bearer <token>"
                body = error_body(401, message, code="invalid_api_key")
                response = JSONResponse(body, 401, headers={"WWW-Authenticate": "Bearer"})
                return await response(scope, receive, send)
        return await self._app(scope, receive, send)
