"""The operator's ends of real gRPC connections under mutual TLS."""

import base64
import json
from datetime import UTC, datetime

import grpc
import pytest

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora_common.errors import CheckpointError, UnavailableError
from aurora_operator.adapters.authority import due_secrets, operator_identity, secret_names
from aurora_operator.adapters.channel import Peer
from aurora_operator.adapters.inference import GrpcInference
from aurora_operator.domain.manifest.parser import parse_manifest
from aurora_operator.domain.manifest.spec import Metadata
from aurora_operator.domain.plan.action import SetTraffic, StageDraft
from aurora_operator.domain.status.deployment import Draft

NAME = "chat-inference.serving.svc"
DRAFT = Draft("ckpt-1", "sha256:1", "file:///store/ckpt-1")


class Inference(inference_pb2_grpc.InferenceServicer):
    """Reports its caller, refuses every draft, and implements no traffic."""

    async def GetStatus(self, request, context):  # noqa: N802
        (name,) = context.auth_context()["x509_subject_alternative_name"]
        return inference_pb2.GetStatusResponse(instance=name.decode())

    async def StageDraft(self, request, context):  # noqa: N802
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "ckpt-1 holds NaN")


def secrets():
    """The Secrets of a deployment with its own authority."""
    manifest = {
        "apiVersion": "aurora.dev/v1alpha1",
        "kind": "AuroraDeployment",
        "metadata": {"name": "chat", "namespace": "serving"},
        "spec": {
            "target": {"uri": "file:///models/target"},
            "buffer": {"embedded": {}},
            "modelStore": {"pvc": {"claimName": "models"}},
        },
    }
    due = due_secrets(
        parse_manifest(json.dumps(manifest), "test"),
        dict.fromkeys(secret_names("chat")),
        datetime.now(UTC),
        owner_uid="u-1",
    )
    return {
        secret["metadata"]["name"]: {
            key: base64.b64decode(value) for key, value in secret["data"].items()
        }
        for secret in due
    }


def identity(found):
    metadata = Metadata(name="chat", namespace="serving")
    return operator_identity(metadata, found["chat-ca"], None, datetime.now(UTC))


@pytest.fixture
def found():
    return secrets()


@pytest.fixture
async def port(found):
    leaf = found["chat-inference-tls"]
    credentials = grpc.ssl_server_credentials(
        [(leaf["tls.key"], leaf["tls.crt"])], leaf["ca.crt"], require_client_auth=True
    )
    server = grpc.aio.server()
    inference_pb2_grpc.add_InferenceServicer_to_server(Inference(), server)
    number = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield number
    await server.stop(None)


async def view(port, identity, name=NAME):
    inference = GrpcInference("chat-inference-a", Peer(f"127.0.0.1:{port}", identity, name))
    try:
        return await inference.view()
    finally:
        await inference.close()


async def test_the_operator_is_authenticated_at_a_pods_address(found, port):
    assert (await view(port, identity(found))).instance == "chat-operator.serving.svc"


async def test_proxy_variables_are_ignored(found, port, monkeypatch):
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert (await view(port, identity(found))).instance == "chat-operator.serving.svc"


async def test_another_deployments_authority_is_not_trusted(port):
    with pytest.raises(UnavailableError, match="UNAVAILABLE"):
        await view(port, identity(secrets()))


async def test_a_peer_with_another_name_is_not_trusted(found, port):
    with pytest.raises(UnavailableError, match="UNAVAILABLE"):
        await view(port, identity(found), "chat-trainer.serving.svc")


async def test_without_an_identity_no_call_succeeds(port):
    with pytest.raises(UnavailableError, match="UNAVAILABLE"):
        await view(port, None, "")


async def test_a_refusal_for_good_differs_from_a_failure(found, port):
    inference = GrpcInference("a", Peer(f"127.0.0.1:{port}", identity(found), NAME))
    with pytest.raises(CheckpointError, match=r"^ckpt-1 holds NaN$"):
        await inference.apply(StageDraft("a", "candidate", DRAFT))
    with pytest.raises(UnavailableError, match=r"^answers UNIMPLEMENTED"):
        await inference.apply(SetTraffic("a", "chat-1", 500))
    await inference.close()
