"""/openapi.json is true: requests made up from it get the answers that it describes."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from aurora_inference.http.app import openai_app

from ..conftest import MODEL

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture
def described(gate, worker, tokenizer):
    tokens = tokenizer.backend_tokenizer.encode("hello").ids
    worker.steps = [tuple(tokens)]
    app = openai_app(gate, opt_out_header="x-aurora-no-train")
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_what_is_described_is_served(described, mode):
    for found in described.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and operation.method.upper() == "GET":
            continue  # nothing in it could be wrong

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def answers_as_described(case):
            if isinstance(case.body, dict) and "model" in case.body:
                case.body["model"] = MODEL
            case.call_and_validate(checks=CHECKS)

        answers_as_described()


async def test_every_served_path_is_described(http):
    described = (await http.get("/openapi.json")).json()
    assert {
        "/v1/completions",
        "/v1/chat/completions",
        "/v1/models",
        "/v1/models/{name}",
        "/tokenize",
        "/detokenize",
        "/health",
        "/version",
        "/metrics",
    } == set(described["paths"])
    assert (await http.get("/docs")).status_code == 200
