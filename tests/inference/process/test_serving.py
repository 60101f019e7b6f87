"""A real process, a real engine, and real clients."""

from __future__ import annotations

import asyncio
import time

import grpc
import httpx2
import numpy as np
import openai
import pytest
from safetensors.torch import load_file, save_file

from aurora.inference.v1 import inference_pb2 as pb
from aurora_common.checkpoint import CheckpointManifest, folder_digest

from .conftest import MODEL

COMPLETION = {"model": MODEL, "prompt": "hello", "max_tokens": 24, "ignore_eos": True}


@pytest.fixture
def client(process):
    with openai.OpenAI(base_url=f"{process.http}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def http(process):
    with httpx2.Client(base_url=process.http, timeout=60) as client:
        yield client


def _settled(stub) -> pb.GetCountersResponse:
    """The counters once no request is running or waiting."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        counters = stub.GetCounters(pb.GetCountersRequest(), timeout=10)
        if counters.running_requests == counters.waiting_requests == 0:
            return counters
    raise AssertionError(f"still busy: {counters}")


class TestOpenAiClient:
    def test_models(self, client):
        assert [model.id for model in client.models.list()] == [MODEL]

    def test_completion_streamed_equals_whole(self, client):
        for sampling in ({"temperature": 0}, {"temperature": 1, "seed": 5, "top_p": 0.9}):
            ask = {"model": MODEL, "prompt": "hello world", "max_tokens": 40, **sampling}
            whole = client.completions.create(**ask)
            chunks = list(
                client.completions.create(
                    **ask, stream=True, stream_options={"include_usage": True}
                )
            )
            text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
            assert text == whole.choices[0].text
            assert chunks[-1].usage == whole.usage
            assert chunks[-1].aurora["draft"] == whole.aurora["draft"]

    def test_chat(self, client):
        ask = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "hello"}],
            "max_completion_tokens": 12,
            "temperature": 0,
            "extra_body": {"ignore_eos": True},
        }
        whole = client.chat.completions.create(**ask)
        assert whole.usage.completion_tokens == 12
        assert whole.choices[0].finish_reason == "length"
        chunks = list(client.chat.completions.create(**ask, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        assert text == whole.choices[0].message.content

    def test_stop_string_cuts_the_same_text(self, client, stub):
        ask = {"model": MODEL, "prompt": "hello", "max_tokens": 200, "temperature": 0}
        whole = client.completions.create(**ask, extra_body={"ignore_eos": True}).choices[0].text
        stop = whole[10:13]
        cut = client.completions.create(**ask, stop=stop, extra_body={"ignore_eos": True})
        assert cut.choices[0].text == whole[: whole.index(stop)]
        assert cut.choices[0].finish_reason == "stop"
        assert cut.usage.completion_tokens < 200
        _settled(stub)

    def test_errors_are_the_librarys_own(self, client):
        with pytest.raises(openai.NotFoundError) as unknown:
            client.completions.create(model="other", prompt="a")
        assert unknown.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as too_long:
            client.completions.create(model=MODEL, prompt=[5] * 512, max_tokens=1)
        assert too_long.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError) as several:
            client.completions.create(model=MODEL, prompt="a", n=2)
        assert several.value.param == "n"


def test_each_answer_names_the_draft_that_served_it(http, stable):
    answer = http.post("/v1/completions", json=COMPLETION)
    aurora = answer.json()["aurora"]
    _, manifest = stable
    assert (aurora["draft"], aurora["draft_digest"]) == (manifest.name, manifest.digest)
    assert aurora["arm"] == "stable"
    assert answer.headers["x-aurora-draft"] == manifest.name


def test_http_and_grpc_say_the_same(http, stub):
    whole = http.post("/v1/completions", json=COMPLETION | {"temperature": 0}).json()
    request = pb.GenerateRequest(prompt="hello", max_tokens=24, ignore_eos=True)
    responses = list(stub.Generate(request, timeout=60))
    assert "".join(one.text for one in responses) == whole["choices"][0]["text"]
    assert responses[-1].usage.completion_tokens == 24
    assert sum(len(one.token_ids) for one in responses) == 24


def test_trajectories_have_a_row_for_each_token_and_opt_out_holds(http, buffer_server, identity):
    asked = COMPLETION | {"temperature": 0}
    domain = {"x-aurora-domain": "kept", "x-aurora-tenant": "acme"}
    http.post("/v1/completions", json=asked, headers=domain | {"x-aurora-no-train": "1"})
    http.post("/v1/completions", json=asked, headers=domain)
    (kept,) = buffer_server.buffer.of("kept")
    assert (kept.tenant, kept.arm) == ("acme", "stable")
    assert (kept.target_digest, kept.tokenizer_digest) == (
        identity.digest,
        identity.tokenizer_digest,
    )
    assert len(kept.output_tokens) == 24
    ids = np.frombuffer(kept.target.token_ids, "<u4").reshape(24, kept.target.k)
    # Greedy: the most probable token of each row is the output token.
    assert ids[:, 0].tolist() == list(kept.output_tokens)
    assert len(kept.target.tail_mass) == 2 * 24


def test_a_dead_buffer_fails_no_request(http, buffer_server):
    buffer_server.stop()
    headers = {"x-aurora-domain": "while-dead"}
    for _ in range(5):
        assert http.post("/v1/completions", json=COMPLETION, headers=headers).status_code == 200
    buffer_server.start()
    assert len(buffer_server.buffer.of("while-dead", count=5)) == 5


async def test_more_requests_than_fit_get_429_and_nothing_breaks(process, stub):
    async with httpx2.AsyncClient(base_url=process.http, timeout=60) as http:
        answers = await asyncio.gather(
            *(http.post("/v1/completions", json=COMPLETION) for _ in range(60))
        )
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) >= 12
        assert (await http.post("/v1/completions", json=COMPLETION)).status_code == 200
    await asyncio.to_thread(_settled, stub)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_frees_its_row(process, stub, stream):
    ask = COMPLETION | {"max_tokens": 500, "stream": stream}
    before = _settled(stub)
    with httpx2.Client(base_url=process.http) as http:
        if stream:
            with http.stream("POST", "/v1/completions", json=ask) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx2.TimeoutException):
                http.post("/v1/completions", json=ask, timeout=0.05)
    after = _settled(stub)
    generated = sum(arm.output_tokens for arm in after.arms)
    assert generated - sum(arm.output_tokens for arm in before.arms) < 500


def test_a_cancelled_call_frees_its_row(stub):
    call = stub.Generate(pb.GenerateRequest(prompt="a", max_tokens=500, ignore_eos=True))
    next(call)
    call.cancel()
    _settled(stub)


def test_health_and_metrics(http):
    assert http.get("/health").json() == {"status": "serving"}
    text = http.get("/metrics").text
    assert "vllm:spec_decode_num_drafts_total" in text
    assert 'aurora_draft_info{arm="stable"' in text


@pytest.mark.parametrize(
    ("method", "request_type"),
    [
        ("StageDraft", pb.StageDraftRequest),
        ("UnstageDraft", pb.UnstageDraftRequest),
        ("PromoteDraft", pb.PromoteDraftRequest),
        ("SetTraffic", pb.SetTrafficRequest),
        ("ListOutcomes", pb.ListOutcomesRequest),
    ],
)
def test_nobody_commands_drafts_on_the_clients_port(stub, method, request_type):
    with pytest.raises(grpc.RpcError) as refused:
        getattr(stub, method)(request_type(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "call it on the control port" in refused.value.details()


class TestRollout:
    def test_candidate_serves_its_share_then_everything(self, http, control, publish, stable):
        folder, manifest = publish("candidate", seed=2)
        draft = pb.Draft(name=manifest.name, digest=manifest.digest, uri=folder.as_uri())
        stage = pb.StageDraftRequest(slot=pb.SLOT_CANDIDATE, draft=draft)
        control.StageDraft(stage, timeout=60)
        control.StageDraft(stage, timeout=60)
        control.SetTraffic(pb.SetTrafficRequest(rollout_id="r1", candidate_bps=10_000), timeout=10)
        aurora = http.post("/v1/completions", json=COMPLETION).json()["aurora"]
        assert (aurora["arm"], aurora["draft"]) == ("candidate", manifest.name)
        listed = control.ListOutcomes(pb.ListOutcomesRequest(rollout_id="r1"), timeout=10)
        assert [outcome.arm for outcome in listed.outcomes] == ["candidate"]

        control.PromoteDraft(pb.PromoteDraftRequest(digest=manifest.digest), timeout=10)
        aurora = http.post("/v1/completions", json=COMPLETION).json()["aurora"]
        assert (aurora["arm"], aurora["draft"]) == ("stable", manifest.name)
        status = control.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert status.stable == draft
        self._back_to(control, stable)

    @staticmethod
    def _back_to(control, stable) -> None:
        folder, manifest = stable
        draft = pb.Draft(name=manifest.name, digest=manifest.digest, uri=folder.as_uri())
        control.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_STABLE, draft=draft), timeout=60)

    @pytest.mark.parametrize("damage", ["flipped", "nan", "other-target"])
    def test_a_bad_checkpoint_is_refused_and_the_stable_serves(
        self, http, control, publish, stable, tmp_path, damage
    ):
        source, manifest = publish("damaged", seed=3)
        folder = tmp_path / "damaged"
        folder.mkdir()
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        digest, says = _damaged(folder, manifest, damage)
        draft = pb.Draft(name="damaged", digest=digest, uri=folder.as_uri())
        with pytest.raises(Exception, match=says):
            control.StageDraft(
                pb.StageDraftRequest(slot=pb.SLOT_CANDIDATE, draft=draft), timeout=60
            )
        status = control.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert status.stable.name == stable[1].name
        assert not status.HasField("candidate")
        assert http.post("/v1/completions", json=COMPLETION).status_code == 200


def _damaged(folder, manifest: CheckpointManifest, damage: str) -> tuple[str, str]:
    """Damages a checkpoint; returns the digest to stage and what the refusal mentions."""
    weights = folder / "model.safetensors"
    if damage == "flipped":
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        return manifest.digest, "digest"
    fields = {"name": "damaged", "target_digest": manifest.target_digest}
    if damage == "nan":
        tensors = load_file(weights)
        next(iter(tensors.values())).view(-1)[0] = float("nan")
        save_file(tensors, weights, metadata={"format": "pt"})
    else:
        fields["target_digest"] = "sha256:" + "0" * 64
    digest = folder_digest(folder)
    altered = CheckpointManifest(
        **fields, digest=digest, tokenizer_digest=manifest.tokenizer_digest
    )
    (folder / "aurora.json").write_bytes(altered.to_json())
    return digest, "finite" if damage == "nan" else "target"
