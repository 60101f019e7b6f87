"""The fake's bearer token check."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

_INFERENCE = "/aurora.inference.v1."


class FakeAuthentication(grpc.ServerInterceptor):  # type: ignore[type-arg]
    """Refuses calls to the inference service without the token."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}"

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        shown = dict(handler_call_details.invocation_metadata).get("authorization")
        handler = continuation(handler_call_details)
        is_asked = handler_call_details.method.startswith(_INFERENCE)
        if handler is None or shown == self._expected or not is_asked:
            return handler

        def refuse(request: object, context: grpc.ServicerContext) -> None:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid token")

        kind = (
            grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return kind(refuse)
