"""Whatever arrives costs a bounded number of bytes, seconds and connections."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket

import pytest

from aurora_common.errors import UnavailableError
from aurora_common.grpc_server import GrpcServer
from aurora_common.port import listening
from aurora_inference.http import body as body_module
from aurora_inference.http import connection
from aurora_inference.http.app import openai_app
from aurora_inference.http.server import HttpServer
from aurora_inference.serving.prompt import PromptEncoder

from ..conftest import CONTEXT_TOKENS, MODEL

JSON = {"content-type": "application/json"}
COMPLETION = {"model": MODEL, "prompt": "hello", "max_tokens": 4}


@pytest.fixture(autouse=True)
def scripted(worker, tokenizer):
    worker.steps = [tuple(tokenizer.backend_tokenizer.encode("hello world").ids)]


async def _post(http, content: bytes, **headers: str):
    return await http.post("/v1/completions", content=content, headers=JSON | headers)


async def test_unknown_keys_cost_nothing(http, monkeypatch):
    monkeypatch.setattr("aurora_inference.http.app._OTHER_BYTES", 16 << 20)
    many = ",".join(f'"k{n}":1' for n in range(300_000))
    answer = await _post(http, f'{{"model":"{MODEL}","prompt":"hello",{many}}}'.encode())
    assert answer.status_code == 200


async def test_many_problems_are_named_up_to_ten(http):
    wrong = dict.fromkeys(
        ("n", "best_of", "echo", "suffix", "min_p", "min_tokens", "logit_bias", "logprobs"), 7
    )
    wrong |= dict.fromkeys(("bad_words", "guided_json", "guided_regex", "guided_choice"), 7)
    answer = await http.post("/v1/completions", json=COMPLETION | wrong)
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400
    assert message.endswith("; and 2 more")
    assert message.count(": is not supported") == 10


@pytest.mark.parametrize("count", [CONTEXT_TOKENS + 1, 100_000])
async def test_more_messages_than_tokens_fit(http, count):
    body = {"model": MODEL, "messages": [5] * count}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert len(answer.content) < 500
    wrong = {"model": MODEL, "messages": [5] * CONTEXT_TOKENS}
    assert len((await http.post("/v1/chat/completions", json=wrong)).content) < 500


async def test_a_prompt_that_cannot_fit_is_not_tokenised(http, tokenizer, monkeypatch):
    longest = max(len(token.encode()) for token in tokenizer.get_vocab())

    def encoded(*_, **__):
        raise AssertionError("it was tokenised")

    monkeypatch.setattr(PromptEncoder, "_encoded", encoded)
    text = "a" * (CONTEXT_TOKENS * longest + 1)
    for path, body in (
        ("/v1/completions", COMPLETION | {"prompt": text}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": text}]}),
        ("/tokenize", {"prompt": text}),
    ):
        answer = await http.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_gzip_bodies(http):
    whole = gzip.compress(json.dumps(COMPLETION).encode())
    assert (await _post(http, whole, **{"content-encoding": "gzip"})).status_code == 200
    cut = await _post(http, whole[:-9], **{"content-encoding": "gzip"})
    assert (cut.status_code, "too early" in cut.text) == (400, True)
    plain = await _post(http, b"{}", **{"content-encoding": "gzip"})
    assert (plain.status_code, "not gzip" in plain.text) == (400, True)
    other = await _post(http, b"{}", **{"content-encoding": "br"})
    assert (other.status_code, "use gzip or none" in other.text) == (415, True)
    bomb = gzip.compress(b" " * (64 << 20))
    assert (await _post(http, bomb, **{"content-encoding": "gzip"})).status_code == 413


async def test_bodies_are_bounded_together(http, monkeypatch):
    monkeypatch.setattr(body_module, "_MAX_HELD_BYTES", 10)
    answer = await _post(http, json.dumps(COMPLETION).encode())
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    monkeypatch.undo()
    assert (await _post(http, json.dumps(COMPLETION).encode())).status_code == 200


@pytest.fixture
async def server(gate):
    app = openai_app(gate, opt_out_header="x-aurora-no-train")
    return HttpServer(app, host="127.0.0.1", port=0, drain_seconds=1)


@pytest.fixture
async def port(server):
    yield server.start()
    await server.stop()


async def _ended(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.read()


async def test_a_head_that_never_ends_is_not_waited_for(port, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)

    async def silent(sent: bytes, again: bytes = b"") -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        trickle = asyncio.create_task(_trickle(writer, again))
        await _ended(reader)
        trickle.cancel()
        writer.close()

    request = b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n"
    await asyncio.gather(
        *(silent(b"") for _ in range(30)),
        silent(b"GET /health HTTP/1.1\r\n", again=b"a: b\r\n"),
        silent(request + b"GET /heal", again=b"t"),
    )


async def _trickle(writer: asyncio.StreamWriter, data: bytes) -> None:
    while data:
        await asyncio.sleep(0.05)
        writer.write(data)


async def _send_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def test_a_connection_is_kept_between_requests(port, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(2):
        writer.write(b"HEAD /health HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(5):
            assert b"200" in await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.4)
    writer.close()


async def test_a_body_that_never_ends_is_not_waited_for(port, monkeypatch):
    monkeypatch.setattr(body_module, "BODY_SECONDS", 0.3)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"content-length: 1000\r\n\r\n{")
    trickle = asyncio.create_task(_trickle(writer, b" "))
    assert b" 408 " in await _ended(reader)
    trickle.cancel()
    writer.close()


async def test_an_answer_reaches_a_client_that_still_sends(port, monkeypatch):
    monkeypatch.setattr(body_module, "BODY_SECONDS", 0.1)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head + b"content-length: 9000000\r\n\r\n{")
    await asyncio.sleep(0.3)
    # The answer lies unread while this arrives.
    for _ in range(10):
        writer.write(b" " * 100_000)
        await writer.drain()
        await asyncio.sleep(0.02)
    assert b" 408 " in await _ended(reader)
    writer.close()


async def test_a_client_that_never_stops_sending_is_left(port, monkeypatch):
    monkeypatch.setattr(connection, "LINGER_SECONDS", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"no HTTP at all\r\n\r\n")
    assert b" 400 " in await _ended(reader)
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionError):
            await _send_on(writer)


async def test_a_grpc_connection_that_says_nothing_is_closed(monkeypatch):
    monkeypatch.setattr(
        "aurora_common.grpc_server.CONNECTION_OPTIONS",
        (("grpc.server_handshake_timeout_ms", 500), ("grpc.so_reuseport", 0)),
    )
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    port = await server.start([])
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
    await asyncio.gather(*(_ended(reader) for reader, _ in streams))
    for _, writer in streams:
        writer.close()
    await server.stop()


async def test_vanished_peers_are_probed():
    listener = listening("127.0.0.1", 0)
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    listener.close()


async def test_prompts_are_not_logged(http, caplog):
    with caplog.at_level(logging.DEBUG):
        await http.post("/v1/completions", json=COMPLETION | {"prompt": "a secret", "top_p": 7})
        await http.post("/v1/completions", json=COMPLETION | {"prompt": "a secret"})
    assert "secret" not in caplog.text


async def test_a_server_that_ends_by_itself_is_noticed(server, port):
    ended = asyncio.create_task(server.ended())
    await asyncio.sleep(0.05)
    assert not ended.done()
    server._server.should_exit = True
    with pytest.raises(UnavailableError, match="the HTTP server ended"):
        await ended
