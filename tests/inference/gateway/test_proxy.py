"""The proxy's own behaviour, in front of a real HTTP server."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx2
import pytest
from aiohttp import web

from aurora_common.token import TokenFolder
from aurora_inference.gateway.server import DrainServer
from aurora_inference.settings import Address

from .conftest import events, proxied, raw

COMPLETION = {"model": "tiny", "prompt": "hello"}


async def until(condition) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - a condition of another task
            await asyncio.sleep(0.005)


# Passing through.


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/a%2Fb%20c?x=1&x=2&y=%26"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/responses"),
        ("DELETE", "/v1/responses/resp_1"),
        ("PUT", "/tokenize"),
        ("OPTIONS", "/v1/chat/completions"),
        ("PATCH", "//double/../dots/./"),
    ],
)
async def test_method_path_and_query_reach_the_engine_as_they_were_sent(running, method, path):
    request = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = await raw(running.port, request.encode())
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert (running.upstream.seen[0].method, running.upstream.seen[0].raw_path) == (method, path)


async def test_headers_pass_but_those_of_one_connection(running):
    await raw(
        running.port,
        b"GET /v1/models HTTP/1.1\r\nHost: models.example\r\nX-Twice: 1\r\nX-Twice: 2\r\n"
        b"Connection: close, X-Hop\r\nX-Hop: mine\r\nTE: trailers\r\nKeep-Alive: timeout=1\r\n"
        b"Proxy-Authorization: secret\r\nX-Request-Id: r-1\r\n\r\n",
    )
    seen = running.upstream.seen[0].headers
    assert ("Host", "models.example") in seen
    assert [value for name, value in seen if name == "X-Twice"] == ["1", "2"]
    assert "r-1" in [value for name, value in seen if name.lower() == "x-request-id"]
    names = {name.lower() for name, _ in seen}
    assert not names & {"x-hop", "te", "keep-alive", "proxy-authorization", "user-agent", "accept"}


async def test_status_reason_headers_and_body_come_back():
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(status=418, reason="Short and stout", body=b"\x00\xff")
        response.headers["X-Hop"], response.headers["Connection"] = "mine", "X-Hop"
        response.headers.add("Set-Cookie", "a=1")
        response.headers.add("Set-Cookie", "b=2")
        response.headers["Server"] = "uvicorn"
        return response

    async with proxied(handler) as running:
        answer = await running.http.get("/anything")
    assert (answer.status_code, answer.reason_phrase) == (418, "Short and stout")
    assert answer.content == b"\x00\xff"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert answer.headers["server"] == "uvicorn"
    assert "x-hop" not in answer.headers


async def test_compressed_answers_stay_compressed():
    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        headers = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
        return web.Response(body=gzip.compress(b"text"), headers=headers)

    async with proxied(handler) as running:
        answer = await running.http.get("/v1/models", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.text == "text"


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/completions"])
async def test_bodies_reach_the_engine_byte_for_byte(running, path):
    body = bytes(range(256)) * 1000
    await running.http.post(path, content=body, headers={"Content-Type": "multipart/form-data"})

    async def pieces():
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    await running.http.post(path, content=pieces())
    assert [seen.body for seen in running.upstream.seen] == [body, body]


async def test_a_client_that_expects_a_go_ahead_gets_one(running):
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(
        b"POST /v1/files HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
        b"Connection: close\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"body")
    assert (await reader.read()).endswith(b"\r\n\r\nplain")
    writer.close()
    assert running.upstream.seen[0].body == b"body"


async def test_head_has_the_length_but_no_body(running):
    answer = await running.http.head("/v1/models")
    assert (answer.headers["content-length"], answer.content) == ("5", b"")


async def test_http_1_0_clients_get_whole_answers():
    async with proxied(events(b"data: 1\n\n", b"data: 2\n\n")) as running:
        answer = await raw(running.port, b"GET /stream HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\ndata: 1\n\ndata: 2\n\n")
    assert b"chunked" not in answer


async def test_stream_parts_are_passed_on_as_they_come():
    gate = asyncio.Event()
    async with (
        proxied(events(b"data: first\n\n", b"data: last\n\n", gate=gate)) as running,
        running.http.stream("POST", "/v1/responses", json={}) as answer,
    ):
        parts = answer.aiter_raw()
        assert await anext(parts) == b"data: first\n\n"
        gate.set()
        assert await anext(parts) == b"data: last\n\n"


# Connections that end early.


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_that_leaves_ends_its_request_in_the_engine(path, streamed):
    never = asyncio.Event()
    first = (b"data: {}\n\n",) if streamed else ()

    async def silent(_: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    handler = events(*first, b"", gate=never) if streamed else silent
    async with proxied(handler) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        body = json.dumps(COMPLETION | {"stream": streamed}).encode()
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await until(lambda: running.upstream.seen)
        if streamed:
            await reader.readuntil(b"data: {}\n\n")
        writer.close()
        async with asyncio.timeout(10):
            await running.upstream.left.wait()
        await until(lambda: running.proxy.calls.is_idle)
        assert running.ledger.running == 0


def _resets(request: web.BaseRequest) -> None:
    assert request.transport is not None
    request.transport.abort()


async def test_an_engine_that_is_not_there_is_503():
    async with proxied() as running:
        await running.upstream.stop()
        for path in ("/v1/completions", "/v1/models"):
            answer = await running.http.post(path, json=COMPLETION)
            error = answer.json()["error"]
            assert (answer.status_code, error["type"]) == (503, "server_error")
            assert answer.headers["retry-after"] == "1"
        await running.upstream.start()
        assert (await running.http.get("/v1/models")).text == "plain"


async def test_an_engine_that_breaks_off_before_answering_is_502():
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        _resets(request)
        await asyncio.Event().wait()
        raise AssertionError

    async with proxied(handler) as running:
        answer = await running.http.post("/v1/chat/completions", json={"messages": []})
        assert (answer.status_code, answer.json()["error"]["type"]) == (502, "server_error")
        assert running.ledger.arms["stable"].failed_requests == 1


async def test_a_stream_that_breaks_off_ends_with_an_error_and_does_not_look_whole():
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'data: {"choices":[1]}\n\ndata: {"cut')
        _resets(request)
        return response

    async with proxied(handler) as running:
        body = json.dumps(COMPLETION | {"stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        chunked = (await raw(running.port, head + body)).partition(b"\r\n\r\n")[2]
        assert not chunked.endswith(b"0\r\n\r\n")
        got = b"".join(chunked.split(b"\r\n")[1::2])
        whole, error, rest = got.split(b"\n\n")
        assert (whole, rest) == (b'data: {"choices":[1]}', b"")
        assert json.loads(error.removeprefix(b"data: "))["error"]["type"] == "server_error"
        assert running.ledger.arms["stable"].failed_requests == 1


async def test_a_body_that_breaks_off_does_not_look_whole():
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        _resets(request)
        return response

    async with proxied(handler) as running:
        with pytest.raises(httpx2.RemoteProtocolError):
            await running.http.get("/v1/models")


async def test_a_connection_that_the_engine_closed_when_idle_loses_no_request():
    """uvicorn closes idle connections; ours are given up earlier."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(text="plain")
        response.force_close()
        return response

    async with proxied(handler) as running:
        for _ in range(20):
            answer = await running.http.post("/v1/completions", content=b"{}")
            assert answer.status_code == 200


# Who may call what.


@pytest.fixture
def tokens(tmp_path):
    (tmp_path / "team").write_text("secret\n")
    return TokenFolder(tmp_path)


async def test_clients_without_a_token_are_refused_everywhere_but_at_health_and_metrics(tokens):
    async with proxied(tokens=tokens, engine_key="the engine's") as running:
        for path in (
            "/",
            "/v1/models",
            "//health",
            "/health/",
            "/metrics/../v1/models",
            "/%68ealthy",
        ):
            answer = await running.http.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["error"]["code"] == "invalid_api_key"
        assert not running.upstream.seen
        assert (await running.http.get("/health")).json() == {"status": "serving"}
        assert (await running.http.get("/metrics")).status_code == 200
        allowed = {"Authorization": "Bearer secret"}
        assert (await running.http.get("/v1/models", headers=allowed)).text == "plain"
        headers = running.upstream.seen[0].headers
        assert [value for name, value in headers if name == "Authorization"] == [
            "Bearer the engine's"
        ]


async def test_the_engine_checks_keys_if_it_should():
    async with proxied() as running:
        await running.http.get("/v1/models", headers={"Authorization": "Bearer client"})
        await running.http.get("/v1/models")
    found = [dict(seen.headers).get("Authorization") for seen in running.upstream.seen]
    assert found == ["Bearer client", None]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/aurora/activate",
        "/v1/aurora",
        "/v1/%61urora/stage",
        "/v1%2Faurora/stage",
        "/prefix/v1/aurora/status?x=1",
    ],
)
async def test_nobody_reaches_the_plugin_through_the_clients_port(running, path):
    answer = await running.http.post(path, json={})
    assert (answer.status_code, running.upstream.seen) == (404, [])


async def test_a_path_that_only_looks_like_the_plugins_passes(running):
    assert (await running.http.get("/v1/auroras")).text == "plain"


async def test_upgrades_are_refused(running):
    answer = await raw(
        running.port,
        b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 501 ")
    assert not running.upstream.seen


# Bounds, admission, drain.


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/audio/transcriptions"])
async def test_larger_bodies_are_refused(path):
    async with proxied(max_body_bytes=1000) as running:

        async def pieces():
            for _ in range(11):
                yield b"x" * 100

        for body in (b"x" * 1001, pieces()):
            answer = await running.http.post(path, content=body)
            assert answer.status_code == 413
            assert "1000 bytes" in answer.json()["error"]["message"]
        assert (await running.http.post(path, content=b"x" * 1000)).status_code == 200


async def test_more_requests_than_allowed_are_429():
    gate = asyncio.Event()
    async with proxied(
        events(b"data: 1\n\n", b"data: 2\n\n", gate=gate), max_inflight=1
    ) as running:
        async with running.http.stream("GET", "/v1/models") as first:
            parts = first.aiter_raw()
            await anext(parts)
            answer = await running.http.get("/v1/models")
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
            assert (await running.http.get("/health")).status_code == 200
            gate.set()
        assert (await running.http.get("/v1/models")).status_code == 200


async def test_a_stop_refuses_new_requests_and_lets_those_in_flight_end():
    gate = asyncio.Event()
    async with proxied(events(b"data: 1\n\n", b"data: 2\n\n", gate=gate)) as running:
        async with running.http.stream("GET", "/v1/models") as first:
            parts = first.aiter_raw()
            await anext(parts)
            stopping = asyncio.create_task(running.server.stop())
            await asyncio.sleep(0)
            for path in ("/v1/models", "/health"):
                answer = await running.http.get(path)
                assert answer.status_code == 503
                assert "stopping" in answer.json()["error"]["message"]
            gate.set()
            assert await anext(parts) == b"data: 2\n\n"
        await stopping
        with pytest.raises(httpx2.ConnectError):
            await running.http.get("/health")


async def test_the_engines_container_may_drain_before_it_ends():
    gate = asyncio.Event()
    async with proxied(events(b"data: 1\n\n", b"data: 2\n\n", gate=gate)) as running:
        drain = DrainServer(running.server, Address("127.0.0.1", 0))
        at = f"http://127.0.0.1:{await drain.start()}/drain"
        async with running.http.stream("GET", "/v1/models") as first:
            parts = first.aiter_raw()
            await anext(parts)
            draining = asyncio.create_task(running.http.post(at))
            async with asyncio.timeout(10):
                while (await running.http.get("/health")).status_code == 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            assert not draining.done()
            gate.set()
            assert await anext(parts) == b"data: 2\n\n"
        assert (await draining).text == "drained\n"
        assert (await running.http.get(at)).status_code == 404
        await drain.stop()


async def test_a_long_prompt_passes(running):
    prompt = "x" * (3 << 20)
    await running.http.post("/v1/completions", json=COMPLETION | {"prompt": prompt})
    seen = running.upstream.seen[0]
    assert json.loads(seen.body)["prompt"] == prompt
    assert dict(seen.headers)["Content-Length"] == str(len(seen.body))


async def test_health_says_why_the_engine_cannot_decode(running):
    running.problem[0] = "no steps"
    answer = await running.http.get("/health")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "no steps" in answer.json()["error"]["message"]


async def test_nothing_is_served_before_the_engine_has_answered(running):
    running.proxy._behind = None
    for path in ("/health", "/metrics", "/v1/models"):
        assert (await running.http.get(path)).status_code == 503


async def test_labels_are_checked(running):
    answer = await running.http.post(
        "/v1/completions", json=COMPLETION, headers={"x-aurora-tenant": "t" * 129}
    )
    assert answer.status_code == 400


async def test_prompts_are_in_no_log(caplog):
    async with proxied() as running:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b" 400 " in await raw(running.port, head + b"very private\r\n\r\n")
        await running.upstream.stop()
        await running.http.post("/v1/completions", json={"prompt": "very private"})
    assert "private" not in caplog.text
