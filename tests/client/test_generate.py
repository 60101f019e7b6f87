from __future__ import annotations

import asyncio
import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from support.certificate import Authority

from aurora_client import (
    AsyncAuroraClient,
    AuroraClient,
    BadRequestError,
    BadResponseError,
    CallCancelledError,
    Chunk,
    ClientClosedError,
    DeadlineExceededError,
    GenerateRequest,
    OverloadedError,
    PermissionDeniedError,
    Retry,
    Speculation,
    Timeout,
    Tls,
    UnavailableError,
    UnsupportedError,
    Usage,
)
from aurora_client.testing import Answer, FakeServer

NO_PAUSE = Retry(retries=2, initial_seconds=0.0)


def test_a_completion_is_the_sum_of_its_chunks(driver):
    with FakeServer(Answer("Hello", " world", end="length", prompt_tokens=7)) as server:
        completion = driver.result(driver.client(server.address).generate("Hi", max_tokens=2))
    assert completion.text == "Hello world"
    assert completion.token_ids == (0, 1)
    assert completion.finish_reason == "length"
    assert completion.usage == Usage(prompt_tokens=7, completion_tokens=2)
    assert completion.speculation.draft == "ckpt-1"
    assert completion.speculation.acceptance_rate == 0.75
    assert completion.speculation.mean_acceptance_length == 4.0


def test_acceptance_is_none_without_a_draft():
    nothing = Speculation("", "", "stable", 0, 0, 0)
    assert nothing.acceptance_rate is None
    assert nothing.mean_acceptance_length is None


def test_ngrams_count_for_the_length_but_not_for_the_draft():
    both = Speculation("d", "sha256:d", "stable", 10, 8, 6, 20, 14)
    assert both.acceptance_rate == 0.75
    assert both.ngram_acceptance_rate == 0.7
    assert both.mean_acceptance_length == 3.0


def test_chunks_arrive_one_by_one_and_the_last_carries_the_totals(driver):
    with FakeServer(Answer("a", "b")) as server:
        client = driver.client(server.address)
        first, second, last = driver.all(client.generate("Hi", max_tokens=2, stream=True))
    assert first == Chunk("request-1", "a", (0,))
    assert second == Chunk("request-1", "b", (1,))
    assert (last.finish_reason, last.usage) == ("stop", Usage(1, 2))


def test_every_option_reaches_the_server(driver):
    options = {
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 3,
        "seed": 0,
        "stop": ("x", "y"),
        "ignore_eos": True,
        "tenant": "t",
        "domain": "d",
        "no_train": True,
        "model": "m",
    }
    with FakeServer() as server:
        driver.result(driver.client(server.address).generate([1, 2, 3], **options))
        assert server.requests == (GenerateRequest(prompt=(1, 2, 3), **options),)


def test_defaults_sample_at_temperature_one_without_truncation(driver):
    with FakeServer() as server:
        driver.result(driver.client(server.address).generate("Hi", max_tokens=1))
        assert server.requests == (GenerateRequest(prompt="Hi", max_tokens=1),)


def test_an_invalid_option_is_refused_locally(driver):
    with FakeServer() as server:
        with pytest.raises(BadRequestError, match="max_tokens"):
            driver.client(server.address).generate("Hi", max_tokens=0)
        assert server.calls == ()


def test_closing_the_stream_cancels_the_call_at_the_server(driver):
    with FakeServer(Answer("a", end="hang")) as server:
        stream = driver.client(server.address).generate("Hi", max_tokens=9, stream=True)
        assert driver.next(stream).text == "a"
        driver.close_stream(stream)
        assert server.wait_for(lambda: server.cancelled == 1)


def test_leaving_a_loop_cancels_the_call():
    with FakeServer(Answer("a", end="hang")) as server, AuroraClient(server.address) as client:
        for chunk in client.generate("Hi", max_tokens=9, stream=True):
            assert chunk.text == "a"
            break
        assert server.wait_for(lambda: server.cancelled == 1)


async def test_leaving_an_async_loop_cancels_the_call():
    with FakeServer(Answer("a", end="hang")) as server:
        async with AsyncAuroraClient(server.address) as client:
            async for chunk in client.generate("Hi", max_tokens=9, stream=True):
                assert chunk.text == "a"
                break
            gc.collect()
            assert await asyncio.to_thread(server.wait_for, lambda: server.cancelled == 1)


async def test_cancelling_the_task_cancels_the_call():
    with FakeServer(Answer("a", end="hang")) as server:
        async with AsyncAuroraClient(server.address) as client:
            task = asyncio.create_task(client.generate("Hi", max_tokens=9))
            assert await asyncio.to_thread(server.wait_for, lambda: len(server.requests) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(server.wait_for, lambda: server.cancelled == 1)


async def test_closing_the_client_ends_a_call_in_flight_without_cancelling_its_task():
    with FakeServer(Answer("a", end="hang")) as server:
        client = AsyncAuroraClient(server.address)
        task = asyncio.create_task(client.generate("Hi", max_tokens=9))
        assert await asyncio.to_thread(server.wait_for, lambda: len(server.requests) == 1)
        await client.close()
        with pytest.raises(CallCancelledError):
            await task


def test_closing_the_client_in_another_thread_ends_a_call_in_flight():
    with FakeServer(Answer("a", end="hang")) as server:
        client = AuroraClient(server.address)
        stream = client.generate("Hi", max_tokens=9, stream=True)
        next(stream)
        closer = threading.Thread(target=client.close)
        closer.start()
        with pytest.raises(CallCancelledError):
            next(stream)
        closer.join()


def test_a_closed_client_says_so(driver):
    with FakeServer() as server:
        client = driver.client(server.address)
        driver.result(client.close())
        with pytest.raises(ClientClosedError, match="closed"):
            driver.result(client.generate("Hi", max_tokens=1))


def test_the_deadline_cancels_a_hanging_call(driver):
    with FakeServer(Answer("a", end="hang")) as server:
        client = driver.client(server.address)
        # Connected first: the server must get the call before its time is up.
        driver.result(client.status())
        began_at = time.monotonic()
        with pytest.raises(DeadlineExceededError, match="timeout"):
            driver.result(client.generate("Hi", max_tokens=9, timeout=1.0))
        assert time.monotonic() - began_at > 0.9
        assert server.wait_for(lambda: server.cancelled == 1)


def test_the_clients_timeout_applies_by_default(driver):
    with FakeServer(Answer(end="hang")) as server:
        client = driver.client(server.address, timeout=Timeout(generate_seconds=0.1))
        with pytest.raises(DeadlineExceededError):
            driver.result(client.generate("Hi", max_tokens=9))


def test_an_unavailable_server_is_retried(driver):
    with FakeServer(Answer("yes")) as server:
        server.fail(UnavailableError("one"), UnavailableError("two"))
        client = driver.client(server.address, retry=NO_PAUSE)
        assert driver.result(client.generate("Hi", max_tokens=1)).text == "yes"
        assert server.calls == ("Generate",) * 3


def test_retries_run_out(driver):
    with FakeServer() as server:
        server.fail(*(UnavailableError(f"number {count}") for count in (1, 2, 3, 4)))
        client = driver.client(server.address, retry=NO_PAUSE)
        with pytest.raises(UnavailableError, match="number 3"):
            driver.result(client.generate("Hi", max_tokens=1))
        assert server.calls == ("Generate",) * 3


def test_nothing_is_retried_once_a_chunk_has_arrived(driver):
    with FakeServer(Answer("a", end=UnavailableError("gone"))) as server:
        client = driver.client(server.address, retry=NO_PAUSE)
        stream = client.generate("Hi", max_tokens=2, stream=True)
        assert driver.next(stream).text == "a"
        with pytest.raises(UnavailableError, match="gone"):
            driver.next(stream)
        assert server.calls == ("Generate",)


@pytest.mark.parametrize(("overloaded", "attempts"), [(False, 1), (True, 3)])
def test_a_full_queue_is_retried_only_on_request(driver, overloaded, attempts):
    with FakeServer() as server:
        server.fail(*[OverloadedError("full")] * 3)
        retry = Retry(retries=2, initial_seconds=0.0, overloaded=overloaded)
        with pytest.raises(OverloadedError, match="full"):
            driver.result(driver.client(server.address, retry=retry).generate("Hi", max_tokens=1))
        assert server.calls == ("Generate",) * attempts


def test_the_injected_jitter_sets_the_pause(driver):
    drawn = []

    def jitter() -> float:
        drawn.append(0.5)
        return 0.5

    with FakeServer() as server:
        server.fail(UnavailableError("once"))
        retry = Retry(retries=1, initial_seconds=0.2)
        client = driver.client(server.address, retry=retry, jitter=jitter)
        began_at = time.monotonic()
        driver.result(client.generate("Hi", max_tokens=1))
        assert time.monotonic() - began_at >= 0.15
    assert drawn == [0.5]


def test_an_unreachable_server_is_reported_without_grpcs_own_words(driver):
    with FakeServer() as server:
        address = server.address
    with pytest.raises(UnavailableError) as caught:
        driver.result(driver.client(address).generate("Hi", max_tokens=1))
    assert str(caught.value) == f"{address}: cannot connect (Connection refused)"
    assert caught.value.address == address


def test_a_truncated_stream_is_not_a_completion(driver, monkeypatch):
    monkeypatch.setattr(Answer, "last", lambda self, request_id: self.chunks(request_id)[0])
    with (
        FakeServer(Answer("a")) as server,
        pytest.raises(BadResponseError, match="without its last response"),
    ):
        driver.result(driver.client(server.address).generate("Hi", max_tokens=1))


@pytest.mark.parametrize("address", ["", "localhost", "http://localhost:1", "a:b", "a:70000"])
def test_an_address_is_host_and_port(driver, address):
    with pytest.raises(BadRequestError, match="host:port"):
        driver.client(address)


def test_a_server_with_a_token_refuses_others(driver):
    with FakeServer(token="secret-a") as server:
        assert driver.result(driver.client(server.address, token="secret-a").status())
        for token in (None, "secret-b"):
            with pytest.raises(PermissionDeniedError, match="no valid token"):
                driver.result(driver.client(server.address, token=token).status())


@pytest.mark.parametrize("token", ["", " ", "two\nlines", "sécret"])
def test_an_invalid_token_is_refused_locally(driver, token):
    with pytest.raises(BadRequestError, match="printable ASCII"):
        driver.client("127.0.0.1:1", token=token)


@pytest.fixture
def tls_server(tmp_path):
    """A TLS-only port, like an ingress: its number and the folder with its CA."""
    folder = Authority().issue(tmp_path, "localhost")
    pair = ((folder / "tls.key").read_bytes(), (folder / "tls.crt").read_bytes())
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
        server.start()
        yield port, folder
        server.stop(None).wait()


def test_a_server_behind_tls_must_be_trusted(driver, tls_server):
    port, folder = tls_server
    known = Tls(authorities=(folder / "ca.crt").read_bytes())
    # It has no services: that it says so proves that the connection works.
    with pytest.raises(UnsupportedError):
        driver.result(driver.client(f"localhost:{port}", tls=known).status())
    for tls in (None, Tls(), Tls(authorities=Authority().pem)):
        with pytest.raises(UnavailableError):
            driver.result(driver.client(f"localhost:{port}", tls=tls).status())


def test_many_threads_share_a_client():
    with FakeServer(Answer("yes")) as server, AuroraClient(server.address) as client:
        answers = []
        threads = [
            threading.Thread(
                target=lambda: answers.append(client.generate("Hi", max_tokens=1).text)
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["yes"] * 8
