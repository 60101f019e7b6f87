from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import aurora_client
from aurora.inference.v1 import inference_pb2 as pb
from aurora.inference.v1 import inference_pb2_grpc as pb_grpc
from aurora_client import AuroraClientError
from aurora_client._errors import status_of

ERRORS = {
    "CANCELLED": "CallCancelledError",
    "UNKNOWN": "ServerError",
    "INVALID_ARGUMENT": "BadRequestError",
    "DEADLINE_EXCEEDED": "DeadlineExceededError",
    "NOT_FOUND": "NotFoundError",
    "ALREADY_EXISTS": "ConflictError",
    "PERMISSION_DENIED": "PermissionDeniedError",
    "RESOURCE_EXHAUSTED": "OverloadedError",
    "FAILED_PRECONDITION": "ConflictError",
    "ABORTED": "ConflictError",
    "OUT_OF_RANGE": "BadRequestError",
    "UNIMPLEMENTED": "UnsupportedError",
    "INTERNAL": "ServerError",
    "UNAVAILABLE": "UnavailableError",
    "DATA_LOSS": "ServerError",
    "UNAUTHENTICATED": "PermissionDeniedError",
}


class Failing(pb_grpc.InferenceServicer):
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def GetStatus(self, request, context):  # noqa: N802
        context.abort(self._code, "the reason")

    def Generate(self, request, context):  # noqa: N802
        yield pb.GenerateResponse(text="a")
        context.abort(self._code, "the reason")


@pytest.fixture
def failing_address(request: pytest.FixtureRequest) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_InferenceServicer_to_server(Failing(grpc.StatusCode[request.param]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_every_status_has_an_error():
    assert set(ERRORS) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize(("failing_address", "name"), ERRORS.items(), indirect=["failing_address"])
def test_a_status_raises_its_error(driver, failing_address, name):
    kind = getattr(aurora_client, name)
    client = driver.client(failing_address)
    with pytest.raises(kind) as unary:
        driver.result(client.status())
    with pytest.raises(kind) as streamed:
        driver.all(client.generate("Hi", max_tokens=1, stream=True))
    for caught in (unary.value, streamed.value):
        assert isinstance(caught, AuroraClientError)
        assert caught.address == failing_address
        if name != "DeadlineExceededError":
            assert caught.detail == "the reason"


def test_each_server_error_has_its_own_status():
    kinds = [getattr(aurora_client, name) for name in set(ERRORS.values())]
    codes = [status_of(kind("why")) for kind in kinds]
    assert len(set(codes)) == len(kinds)


def test_an_error_names_the_address_and_the_reason():
    assert str(AuroraClientError("why", address="host:1")) == "host:1: why"
    assert str(AuroraClientError("why")) == "why"


def test_another_service_at_the_address_is_explained(driver):
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(aurora_client.UnsupportedError, match="is it another service"):
            driver.result(driver.client(f"127.0.0.1:{port}").status())
    finally:
        server.stop(None).wait()
