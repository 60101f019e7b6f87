"""A gateway process between clients, an operator, a buffer and a real HTTP server as its engine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager

import grpc
import httpx2
import numpy as np
import pytest
from aiohttp import web

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora.inference.v1 import inference_pb2 as pb
from aurora.inference.v1 import inference_pb2_grpc
from aurora_common.grpc_server import GrpcServer
from aurora_model.config import DecoderConfig, read_config

from .conftest import Upstream

SPECULATION = {"speculative_decoding": {"per_step_drafted": [4, 4], "per_step_accepted": [3, 1]}}
IDS = [7, 8, 9]
K = 2


class Engine:
    """Answers as much of an engine's HTTP as the gateway's process needs."""

    def __init__(self, digest: str, target: DecoderConfig) -> None:
        self.target = {
            "vocab_size": target.vocab_size,
            "hidden_size": target.hidden_size,
            "num_hidden_layers": target.num_layers,
        }
        self.start = self.live = {"digest": digest, "name": "start"}
        self.staged: dict | None = None
        self.instance = "1"
        self.ended: list[str] = []
        self.gate: asyncio.Event | None = None
        self.began = asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        content = json.loads(body) if body else {}
        assert request.headers.get("authorization") == "Bearer k"
        match request.raw_path.removeprefix("/v1/"):
            case "/health":
                return web.Response()
            case "/metrics":
                return web.Response(text="vllm:spec_decode_num_drafts_total 2.0\n")
            case "models":
                return web.json_response({"data": [{"id": "tiny", "max_model_len": 512}]})
            case "aurora/status":
                return web.json_response(self.status())
            case "aurora/stage":
                self.staged = {"digest": content["digest"], "name": content["name"]}
                return web.json_response({})
            case "aurora/unstage":
                self.staged = None
                return web.json_response({})
            case "aurora/activate":
                self.live, self.staged = self.staged, self.live
                return web.json_response({"flip_us": 900, "steps": {}})
            case "aurora/capture":
                return web.Response(body=self.captured())
            case "completions":
                return await self.complete(content)
        raise AssertionError(request.raw_path)

    def status(self) -> dict:
        return {
            "plugin": "0.1.0",
            "instance": self.instance,
            "start": self.start,
            "live": self.live,
            "staged": [self.staged] if self.staged else [],
            "speculation_length": 4,
            "method": "draft_model",
            "target": self.target,
        }

    async def complete(self, content: dict) -> web.StreamResponse:
        self.began.set()
        if self.gate is not None:
            await self.gate.wait()
        self.ended.append(content["vllm_xargs"]["aurora_key"])
        token_ids = {"prompt_token_ids": [1, 2], "token_ids": IDS}
        choice = {"index": 0, "text": "abc", "finish_reason": "length", **token_ids}
        answer = {"id": "1", "choices": [choice], "usage": {"completion_tokens": 3}}
        text = json.dumps({**answer, "metrics": SPECULATION}, separators=(",", ":"))
        return web.Response(text=text, content_type="application/json")

    def captured(self) -> bytes:
        keys, self.ended = self.ended, []
        count = len(IDS)
        requests = [{"key": key, "k": K, "tokens": count, "steps": []} for key in keys]
        arrays = np.arange(count * K, dtype="<u4").tobytes()
        arrays += np.log(np.full(count * K, 0.25)).astype("<f2").tobytes()
        arrays += np.full(count, 0.5, "<f2").tobytes() + np.array(IDS, "<u4").tobytes()
        header = json.dumps({"batch": 1, "more": False, "requests": requests}).encode()
        return len(header).to_bytes(4, "little") + header + arrays * len(keys)


class Buffer(buffer_pb2_grpc.BufferServicer):
    def __init__(self) -> None:
        self.trajectories: asyncio.Queue = asyncio.Queue()

    async def Append(self, request_iterator, context):  # noqa: N802
        async for request in request_iterator:
            for one in request.trajectories:
                self.trajectories.put_nowait(one)
        return buffer_pb2.AppendResponse()


class Gateway:
    """A running process and its log."""

    def __init__(self, process) -> None:
        self.process = process
        self.lines: list[dict] = []

    async def logged(self, message: str, field: str = "message") -> dict:
        async with asyncio.timeout(60):
            while True:
                for line in self.lines:
                    if line["message"] == message and field in line:
                        return line
                line = await self.process.stderr.readline()
                assert line, self.lines
                self.lines.append(json.loads(line))

    async def http(self) -> str:
        return f"http://127.0.0.1:{(await self.logged('listening', 'http_port'))['http_port']}"

    async def control(self) -> str:
        port = (await self.logged("listening", "control_port"))["control_port"]
        return f"127.0.0.1:{port}"


@asynccontextmanager
async def started(*flags: str):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aurora_inference.gateway", "--http-listen", "127.0.0.1:0"),
        *("--control-listen", "127.0.0.1:0", *flags),
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        yield Gateway(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def drafts(publish):
    return {name: publish(name, seed) for name, seed in (("one", 1), ("two", 2))}


@pytest.fixture
async def engine(drafts, target_folder):
    engine = Engine(drafts["one"][1].digest, read_config(target_folder))
    upstream = Upstream(engine.handle)
    await upstream.start()
    engine.url = upstream.url
    yield engine
    await upstream.stop()


@pytest.fixture
async def gateway(engine, target_folder, tmp_path):
    """A serving process, with `buffer` at its other end."""
    (tmp_path / "key").write_text("k\n")
    buffer = Buffer()
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(buffer_pb2_grpc.add_BufferServicer_to_server, buffer)
    port = await server.start([])
    async with started(
        *("--engine", engine.url, "--engine-key", str(tmp_path / "key")),
        *("--target", str(target_folder), "--buffer", f"127.0.0.1:{port}"),
        *("--capture-percent", "100"),
    ) as process:
        process.buffer = buffer
        await process.logged("serving")
        yield process
    await server.stop()


async def test_a_request_is_answered_recorded_and_counted(gateway, identity, drafts):
    async with httpx2.AsyncClient(base_url=await gateway.http(), timeout=30) as http:
        body = {"model": "tiny", "prompt": "very private", "temperature": 0.5}
        headers = {"x-aurora-tenant": "acme", "x-aurora-domain": "sql"}
        answer = (await http.post("/v1/completions", json=body, headers=headers)).json()
        assert answer["metrics"] is None
        assert answer["choices"][0]["token_ids"] is None

        async with asyncio.timeout(30):
            made = await gateway.buffer.trajectories.get()
        assert (made.tenant, made.domain, made.arm) == ("acme", "sql", "stable")
        assert made.target_digest == identity.digest
        assert made.tokenizer_digest == identity.tokenizer_digest
        assert made.draft_digest == drafts["one"][1].digest
        assert (list(made.prompt_tokens), list(made.output_tokens)) == ([1, 2], IDS)
        assert [(step.drafted, step.accepted) for step in made.steps] == [(4, 3), (4, 1)]
        assert (made.target.k, len(made.target.token_ids)) == (K, 4 * K * len(IDS))
        assert made.sampling.temperature == 0.5

        page = (await http.get("/metrics")).text
        assert 'aurora_spec_draft_tokens_total{arm="stable"} 8.0' in page
        assert 'aurora_spec_accepted_tokens_total{arm="stable",position="0"} 2.0' in page
        assert "aurora_engine_up 1.0" in page
        assert "vllm:spec_decode_num_drafts_total 2.0" in page
        assert page.count("vllm:") == 1

        await http.post("/v1/completions", json=body, headers={"x-aurora-no-train": "1"})
        await http.post("/v1/completions", json=body, headers={"x-aurora-tenant": "last"})
        async with asyncio.timeout(30):
            assert (await gateway.buffer.trajectories.get()).tenant == "last"
    assert "very private" not in json.dumps(gateway.lines)


async def test_the_operator_finds_the_verbs_of_every_engine(gateway, engine, drafts, identity):
    folder, manifest = drafts["two"]
    async with grpc.aio.insecure_channel(await gateway.control()) as channel:
        stub = inference_pb2_grpc.InferenceStub(channel)
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert (status.model, status.max_context_tokens) == ("tiny", 512)
        assert (status.target_digest, status.stable.digest) == (
            identity.digest,
            drafts["one"][1].digest,
        )
        draft = pb.Draft(name=manifest.name, digest=manifest.digest, uri=folder.as_uri())
        await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_CANDIDATE, draft=draft), timeout=30)
        await stub.SetTraffic(
            pb.SetTrafficRequest(rollout_id="r", candidate_bps=10_000, crossed=True), timeout=30
        )
        assert engine.live["digest"] == manifest.digest
        async with httpx2.AsyncClient(base_url=await gateway.http()) as http:
            await http.post("/v1/completions", json={"model": "tiny", "prompt": "a"})
        counters = await stub.GetCounters(pb.GetCountersRequest(), timeout=10)
        assert {arm.arm: arm.drafted_tokens for arm in counters.arms} == {
            "stable": 0,
            "candidate": 8,
        }
        await stub.PromoteDraft(pb.PromoteDraftRequest(digest=manifest.digest), timeout=30)
        status = await stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert (status.stable.digest, status.HasField("candidate")) == (manifest.digest, False)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await anext(aiter(stub.Generate(pb.GenerateRequest(prompt="a"), timeout=10)))
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stop_drains_what_is_in_flight(gateway, engine):
    engine.gate = asyncio.Event()
    async with httpx2.AsyncClient(base_url=await gateway.http(), timeout=30) as http:
        body = {"model": "tiny", "prompt": "a"}
        pending = asyncio.create_task(http.post("/v1/completions", json=body))
        await engine.began.wait()
        gateway.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            while (await http.get("/health")).status_code != 503:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await http.post("/v1/completions", json=body)).status_code == 503
        engine.gate.set()
        assert (await pending).status_code == 200
    assert await asyncio.wait_for(gateway.process.wait(), 15) == 0
    async with asyncio.timeout(10):
        assert (await gateway.buffer.trajectories.get()).output_tokens == IDS


async def test_it_is_ready_only_while_the_engine_is(engine, target_folder, tmp_path):
    (tmp_path / "key").write_text("k")
    flags = ("--engine", engine.url, "--engine-key", str(tmp_path / "key"))
    engine.status, status = dict, engine.status

    async def becomes(http, expected):
        async with asyncio.timeout(20):
            while (await http.get("/health")).status_code != expected:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async with (
        started(*flags) as process,
        httpx2.AsyncClient(base_url=await process.http()) as http,
    ):
        await process.logged("engine unhealthy")
        assert "plugin" in process.lines[-1]["reason"]
        assert (await http.get("/health")).status_code == 503
        engine.status = status
        await becomes(http, 200)
        engine.status = dict
        await becomes(http, 503)
        assert "install the plugin" in (await http.get("/health")).json()["error"]["message"]


async def test_a_taken_port_and_a_missing_key_are_one_line(engine, tmp_path):
    async with started("--engine", engine.url, "--engine-key", str(tmp_path / "none")) as process:
        assert await process.process.wait() == 78
        assert b"--engine-key" in await process.process.stderr.read()


async def test_until_the_engine_is_fit_the_operator_hears_why(engine, target_folder, tmp_path):
    engine.target = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 7}
    (tmp_path / "key").write_text("k\n")
    async with started(
        *("--engine", engine.url, "--engine-key", str(tmp_path / "key")),
        *("--target", str(target_folder)),
    ) as process:
        await process.logged("engine unhealthy")
        async with grpc.aio.insecure_channel(await process.control()) as channel:
            stub = inference_pb2_grpc.InferenceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetStatus(pb.GetStatusRequest(), timeout=10)

    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "7 layers of 8, 9 tokens" in caught.value.details()
