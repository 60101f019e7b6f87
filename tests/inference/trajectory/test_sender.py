"""Trajectories reach the buffer at least once, and the buffer never delays a request."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import grpc
import numpy as np
import pytest
from support.certificate import Authority

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_common.errors import StorageError
from aurora_common.grpc_server import GrpcServer
from aurora_common.tls import CertificateFolder
from aurora_inference.contract import Request, Sampling, SpeculationReport
from aurora_inference.trajectory.admission import Admission
from aurora_inference.trajectory.backlog import Backlog
from aurora_inference.trajectory.completion import Completion, Distributions, VerifyStep
from aurora_inference.trajectory.record import estimated_bytes, trajectory
from aurora_inference.trajectory.sender import SenderSettings, TrajectorySender

QUICK = SenderSettings(linger_seconds=0.01, least_backoff_seconds=0.01, most_backoff_seconds=0.05)


def _completion(name: str = "r", tokens: int = 3) -> Completion:
    rng = np.random.default_rng(0)
    return Completion(
        request=Request(
            name, (1, 2), 8, Sampling(0.5, 0.9, 4, -1), tenant="acme", domain="sql", record=True
        ),
        output_tokens=tuple(range(10, 10 + tokens)),
        report=SpeculationReport("ckpt-1", "sha256:d", "candidate", 2, 4, 2),
        steps=(VerifyStep(2, 1, 3, 900), VerifyStep(2, 1, 3, 950, by_other=True)),
        distributions=Distributions(
            top_ids=rng.integers(0, 99, (tokens, 4)).astype(np.uint32),
            top_log_probs=rng.normal(size=(tokens, 4)).astype(np.float16),
            tail_mass=rng.random(tokens).astype(np.float16),
        ),
        admission=Admission("run", 44, 33),
    )


def test_trajectory_has_the_protos_layout():
    completion = _completion()
    made = trajectory(
        completion, target_digest="sha256:t", tokenizer_digest="sha256:k", finished_at_ms=77
    )
    assert (made.request_id, made.tenant, made.domain) == ("r", "acme", "sql")
    assert (made.arm, made.draft_digest, made.finished_at_ms) == ("candidate", "sha256:d", 77)
    assert (made.sampling.top_k, made.sampling.seed) == (4, 2**64 - 1)
    assert list(made.output_tokens) == [10, 11, 12]
    assert made.admission == buffer_pb2.Admission(engine="run", at_us=44, open_since_us=33)
    assert [step.microseconds for step in made.steps] == [900, 950]
    assert [step.by_other for step in made.steps] == [False, True]
    assert made.target.k == 4
    ids = np.frombuffer(made.target.token_ids, "<u4").reshape(3, 4)
    log_probs = np.frombuffer(made.target.log_probs, "<f2").reshape(3, 4)
    np.testing.assert_array_equal(ids, completion.distributions.top_ids)
    np.testing.assert_array_equal(log_probs, completion.distributions.top_log_probs)
    np.testing.assert_array_equal(
        np.frombuffer(made.target.tail_mass, "<f2"), completion.distributions.tail_mass
    )
    assert made.ByteSize() <= estimated_bytes(completion)


def test_backlog_drops_the_oldest_by_count():
    backlog = Backlog(max_entries=2, max_bytes=1 << 20)
    for name in "abc":
        backlog.put(_completion(name), 0)
    taken = backlog.take(max_entries=10, max_bytes=1 << 20)
    assert [entry.completion.request.id for entry in taken] == ["b", "c"]
    assert backlog.dropped == 1


def test_backlog_drops_the_oldest_by_bytes():
    size = estimated_bytes(_completion())
    backlog = Backlog(max_entries=100, max_bytes=2 * size)
    for name in "abc":
        backlog.put(_completion(name), 0)
    assert (len(backlog), backlog.dropped) == (2, 1)
    backlog.put(_completion("huge", tokens=10_000), 0)
    assert (len(backlog), backlog.dropped) == (0, 4)


def test_backlog_gives_batches_in_order_within_bytes():
    size = estimated_bytes(_completion())
    backlog = Backlog(max_entries=100, max_bytes=100 * size)
    for name in "abcde":
        backlog.put(_completion(name), 0)
    first = backlog.take(max_entries=10, max_bytes=2 * size)
    assert [entry.completion.request.id for entry in first] == ["a", "b"]
    assert len(backlog.take(max_entries=10, max_bytes=1)) == 1
    assert len(backlog.take(max_entries=1, max_bytes=100 * size)) == 1


class FakeBuffer(buffer_pb2_grpc.BufferServicer):
    """Keeps what it receives, after failing with the scripted errors."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.errors: list[grpc.StatusCode] = []
        self.calls = 0
        self.block: asyncio.Event | None = None

    async def Append(self, requests, context):  # noqa: N802
        self.calls += 1
        got = [one.request_id async for request in requests for one in request.trajectories]
        if self.errors:
            await context.abort(self.errors.pop(0), "scripted")
        if self.block is not None:
            await self.block.wait()
        self.ids += got
        return buffer_pb2.AppendResponse(appended=len(got))


@pytest.fixture
def buffer() -> FakeBuffer:
    return FakeBuffer()


async def _serve(buffer: FakeBuffer, port: int = 0) -> tuple[GrpcServer, int]:
    server = GrpcServer(f"127.0.0.1:{port}", drain_seconds=0)
    server.add(buffer_pb2_grpc.add_BufferServicer_to_server, buffer)
    return server, await server.start(["aurora.buffer.v1.Buffer"])


def _sender(port: int, settings: SenderSettings = QUICK) -> TrajectorySender:
    return TrajectorySender(
        f"127.0.0.1:{port}", target_digest="t", tokenizer_digest="k", settings=settings
    )


async def _until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the sender has no event for its counts
            await asyncio.sleep(0.001)


async def test_all_are_sent_in_order_and_counted(buffer):
    server, port = await _serve(buffer)
    sender = _sender(port)
    names = [str(number) for number in range(200)]
    for name in names:
        sender.record(_completion(name))
    await _until(lambda: sender.sent == 200)
    assert buffer.ids == names
    assert (sender.queued, sender.dropped) == (0, 0)
    assert buffer.calls < 50
    await sender.stop(flush_seconds=5)
    await server.stop()


async def test_certificates_reload(buffer, tmp_path):
    folders = [tmp_path / "buffer", tmp_path / "inference"]
    authorities = [Authority() for _ in range(3)]
    for folder in folders:
        authorities[0].issue(folder, "localhost")
    server = GrpcServer("localhost:0", drain_seconds=0, certificates=CertificateFolder(folders[0]))
    server.add(buffer_pb2_grpc.add_BufferServicer_to_server, buffer)
    port = await server.start(["aurora.buffer.v1.Buffer"])
    sender = TrajectorySender(
        f"localhost:{port}",
        target_digest="t",
        tokenizer_digest="k",
        certificates=CertificateFolder(folders[1]),
        settings=QUICK,
    )
    for number, authority in enumerate(authorities):
        for folder in folders:
            authority.issue(folder, "localhost")
        sender.record(_completion(str(number)))
        await _until(lambda number=number: sender.sent == number + 1)
    assert buffer.ids == ["0", "1", "2"]
    await sender.stop(flush_seconds=5)
    await server.stop()


async def test_a_batch_not_acknowledged_is_sent_again(buffer):
    buffer.errors = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL]
    server, port = await _serve(buffer)
    sender = _sender(port)
    sender.record(_completion("a"))
    await _until(lambda: sender.sent == 1)
    assert (buffer.ids, buffer.calls) == (["a"], 3)
    await sender.stop(flush_seconds=5)
    await server.stop()


async def test_a_batch_rejected_for_good_is_dropped(buffer):
    buffer.errors = [grpc.StatusCode.INVALID_ARGUMENT]
    server, port = await _serve(buffer)
    sender = _sender(port)
    sender.record(_completion("bad"))
    await _until(lambda: sender.dropped == 1)
    sender.record(_completion("good"))
    await _until(lambda: sender.sent == 1)
    assert buffer.ids == ["good"]
    await sender.stop(flush_seconds=5)
    await server.stop()


async def test_a_dead_buffer_delays_nothing_and_gets_the_backlog_on_return(buffer):
    server, port = await _serve(buffer)
    await server.stop()
    settings = SenderSettings(
        max_entries=100,
        linger_seconds=0.01,
        least_backoff_seconds=0.01,
        most_backoff_seconds=0.05,
    )
    sender = _sender(port, settings)
    started = time.perf_counter()
    for number in range(300):
        sender.record(_completion(str(number)))
    assert time.perf_counter() - started < 1
    assert sender.dropped == 200
    server, _ = await _serve(buffer, port)
    await _until(lambda: sender.queued == 0)
    assert buffer.ids[-1] == "299"
    assert sender.sent + sender.dropped == 300
    await sender.stop(flush_seconds=5)
    await server.stop()


async def test_stop_flushes(buffer):
    server, port = await _serve(buffer)
    sender = _sender(port, SenderSettings(linger_seconds=60))
    sender.record(_completion("a"))
    await sender.stop(flush_seconds=10)
    assert (buffer.ids, sender.sent) == (["a"], 1)
    await server.stop()


async def test_stop_does_not_wait_for_a_hanging_buffer(buffer):
    buffer.block = asyncio.Event()
    server, port = await _serve(buffer)
    sender = _sender(port)
    sender.record(_completion("a"))
    await _until(lambda: buffer.calls == 1)
    started = time.perf_counter()
    await sender.stop(flush_seconds=0.2)
    assert time.perf_counter() - started < 5
    assert (sender.sent, sender.queued) == (0, 1)
    await server.stop()


async def test_what_cannot_be_encoded_is_dropped_and_the_others_are_sent(buffer, caplog):
    server, port = await _serve(buffer)
    sender = _sender(port)
    good = _completion("good")
    for change in ({"top_k": 1 << 32}, {"top_k": -1}, {"temperature": "hot"}):
        sampling = replace(good.request.sampling, **change)
        sender.record(replace(good, request=replace(good.request, id="bad", sampling=sampling)))
    sender.record(replace(good, output_tokens=(1 << 40,)))
    sender.record(good)
    await _until(lambda: sender.sent == 1)
    assert (buffer.ids, sender.dropped, sender.queued) == (["good"], 4, 0)
    assert sender.problem == ""
    assert "cannot be encoded" in caplog.text
    assert str(1 << 40) not in caplog.text
    await sender.stop(flush_seconds=1)
    await server.stop()


@pytest.mark.parametrize("error", [MemoryError(), StorageError("no certificate yet")])
async def test_a_sender_that_breaks_is_started_again(buffer, monkeypatch, error):
    server, port = await _serve(buffer)
    broken = asyncio.Event()

    def breaks_once(self, *arguments):
        monkeypatch.undo()
        broken.set()
        raise error

    monkeypatch.setattr(TrajectorySender, "_trajectory", breaks_once)
    sender = _sender(port)
    sender.record(_completion("lost"))
    await broken.wait()
    sender.record(_completion("kept"))
    await _until(lambda: sender.sent == 1)
    assert (sender.failures, sender.dropped, sender.queued) == (1, 1, 0)
    await sender.stop(flush_seconds=1)
    await server.stop()


async def test_nothing_recorded_for_minutes_is_a_problem_with_its_cause(buffer, monkeypatch):
    monkeypatch.setattr("aurora_inference.trajectory.sender._PROBLEM_SECONDS", 0.2)
    server, port = await _serve(buffer)
    buffer.errors = [grpc.StatusCode.UNAVAILABLE] * 1000
    sender = _sender(port)
    assert sender.problem == ""
    sender.record(_completion())
    await _until(lambda: sender.problem)
    assert "the buffer answers UNAVAILABLE: scripted" in sender.problem
    buffer.errors = []
    await _until(lambda: sender.sent == 1)
    assert sender.problem == ""
    await sender.stop(flush_seconds=1)
    await server.stop()
