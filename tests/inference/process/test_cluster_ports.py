"""The ports as in a pod: clients authenticate with tokens, the operator with a certificate."""

from __future__ import annotations

import time
from contextlib import contextmanager

import grpc
import httpx2
import openai
import pytest
from support.certificate import Authority

from aurora.inference.v1 import inference_pb2 as pb
from aurora.inference.v1 import inference_pb2_grpc
from aurora_client import AuroraClient, PermissionDeniedError
from aurora_common.port import free_port

from .conftest import MODEL, running

TOKEN = "token-of-team-a"
OPERATOR = "chat-operator.serving.svc"
ROLLOUT = "chat-1"


class Pod:
    def __init__(self, process, control_port, authority, folder):
        self.process = process
        self._control = f"127.0.0.1:{control_port}"
        self.authority = authority
        self.folder = folder
        self.tokens = folder / "tokens"

    def models(self, token):
        headers = {"Authorization": f"Bearer {token}"}
        return httpx2.get(f"{self.process.http}/v1/models", headers=headers, timeout=30)

    def until(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    @contextmanager
    def control(self, peer=OPERATOR):
        """A stub for the control port, with a certificate for `peer`."""
        folder = self.authority.issue(self.folder / peer, peer)
        credentials = grpc.ssl_channel_credentials(
            *((folder / name).read_bytes() for name in ("ca.crt", "tls.key", "tls.crt"))
        )
        options = [("grpc.ssl_target_name_override", "inference")]
        with grpc.secure_channel(self._control, credentials, options=options) as channel:
            yield inference_pb2_grpc.InferenceStub(channel)


@pytest.fixture(scope="module")
def pod(target_folder, tmp_path_factory):
    authority, folder = Authority(), tmp_path_factory.mktemp("pod")
    tokens = folder / "tokens"
    tokens.mkdir()
    (tokens / "team-a").write_text(f"{TOKEN}\n")
    port = free_port()
    with running(
        target_folder,
        *("--control-listen", f"127.0.0.1:{port}"),
        *("--tls", str(authority.issue(folder / "tls", "inference")), "--admit", OPERATOR),
        *("--tokens", str(tokens)),
    ) as process:
        process.logged("serving")
        yield Pod(process, port, authority, folder)


def openai_client(pod, token):
    return openai.OpenAI(base_url=f"{pod.process.http}/v1", api_key=token, max_retries=0)


def test_openai_clients_authenticate_with_their_key(pod):
    with openai_client(pod, TOKEN) as client:
        answer = client.completions.create(model=MODEL, prompt="hello", max_tokens=4)
        assert answer.usage.completion_tokens >= 1
    with openai_client(pod, "another") as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.completions.create(model=MODEL, prompt="hello", max_tokens=4)
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_only_health_and_metrics_need_no_token(pod):
    for path in ("/health", "/metrics"):
        assert httpx2.get(f"{pod.process.http}{path}", timeout=30).status_code == 200
    for path in ("/", "/v1", "/v1/models", "//v1/models", "/metrics/../v1/models", "/docs"):
        answer = httpx2.get(f"{pod.process.http}{path}", timeout=30)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_tokens_reload_while_serving(pod):
    team = pod.tokens / "team-b"
    for token in ("first-of-team-b", "second-of-team-b"):
        (pod.tokens / ".new").write_text(token)
        (pod.tokens / ".new").rename(team)
        pod.until(lambda token=token: pod.models(token).status_code == 200)
    assert pod.models("first-of-team-b").status_code == 401
    team.unlink()
    pod.until(lambda: pod.models("second-of-team-b").status_code == 401)
    assert pod.models(TOKEN).status_code == 200


def test_grpc_clients_show_their_token(pod):
    with AuroraClient(pod.process.grpc, token=TOKEN) as client:
        assert client.generate("hello", max_tokens=4).usage.completion_tokens >= 1
    with AuroraClient(pod.process.grpc) as client, pytest.raises(PermissionDeniedError):
        client.generate("hello", max_tokens=4)


def test_clients_do_not_change_drafts(pod):
    with (
        AuroraClient(pod.process.grpc, token=TOKEN) as client,
        pytest.raises(PermissionDeniedError, match="call it on the control port"),
    ):
        client.drafts.unstage()


def test_the_operator_alone_reaches_the_control_port(pod):
    with pod.control() as stub:
        assert stub.GetStatus(pb.GetStatusRequest(), timeout=30).model == MODEL
    for peer in ("chat-trainer.serving.svc", "chat-operator.other.svc", "aurora-operator"):
        with pod.control(peer) as stub, pytest.raises(grpc.RpcError) as refused:
            stub.GetStatus(pb.GetStatusRequest(), timeout=30)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_certificates_reload_while_serving(pod):
    successor = Authority()
    old = pod.authority
    with pod.control() as before:
        assert before.GetStatus(pb.GetStatusRequest(), timeout=30).model == MODEL
        successor.issue(pod.folder / "tls", "inference")
        pod.authority = successor
        with pod.control() as after:
            assert after.GetStatus(pb.GetStatusRequest(), timeout=30).model == MODEL
        # An established connection keeps working.
        assert before.GetStatus(pb.GetStatusRequest(), timeout=30).model == MODEL
    pod.authority = old
    with pod.control() as stub, pytest.raises(grpc.RpcError) as refused:
        stub.GetStatus(pb.GetStatusRequest(), timeout=30)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    pod.authority = successor


def test_no_token_is_logged(pod):
    assert not any(TOKEN in line for line in pod.process.lines)


def test_the_process_waits_until_the_last_outcomes_are_fetched(target_folder, publish):
    folder, manifest = publish("candidate", seed=3)
    port = free_port()
    with (
        running(
            target_folder,
            *("--control-listen", f"127.0.0.1:{port}"),
            *("--no-adaptive-speculation", "--drain-seconds", "5"),
        ) as process,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        process.logged("serving")
        stub = inference_pb2_grpc.InferenceStub(channel)
        draft = pb.Draft(name="candidate", digest=manifest.digest, uri=folder.as_uri())
        stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_CANDIDATE, draft=draft), timeout=60)
        stub.SetTraffic(pb.SetTrafficRequest(rollout_id=ROLLOUT, candidate_bps=5000), timeout=30)
        ask = {"model": MODEL, "prompt": "a", "max_tokens": 60, "ignore_eos": True, "stream": True}
        with (
            httpx2.Client(base_url=process.http, timeout=30) as http,
            http.stream("POST", "/v1/completions", json=ask) as answer,
        ):
            lines = answer.iter_lines()
            next(lines)
            process.popen.terminate()
            assert [line for line in lines if line][-1] == "data: [DONE]"
        request = pb.ListOutcomesRequest(rollout_id=ROLLOUT)
        page = stub.ListOutcomes(request, timeout=30)
        assert [outcome.sequence for outcome in page.outcomes] == [1]
        assert process.popen.poll() is None
        assert process.popen.wait(30) == 0
