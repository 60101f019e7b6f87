"""aurora.inference.v1 over a scripted engine and a real channel."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest

from aurora.inference.v1 import inference_pb2 as pb
from aurora.inference.v1 import inference_pb2_grpc
from aurora_common.errors import CheckpointError
from aurora_common.grpc_server import GrpcServer
from aurora_inference.contract import Sampling, Served
from aurora_inference.grpc.control_servicer import SERVICE
from aurora_inference.grpc.servicer import InferenceServicer

from ..conftest import CONTEXT_TOKENS, MODEL


class FakeDraft:
    def __init__(self, name: str, fill: str) -> None:
        self.name = name
        self.digest = "sha256:" + fill * 64


def _message(draft: FakeDraft) -> pb.Draft:
    return pb.Draft(name=draft.name, digest=draft.digest, uri=f"file:///models/{draft.name}")


@pytest.fixture
async def stub(gate):
    server = GrpcServer("127.0.0.1:0", drain_seconds=1)
    server.add(inference_pb2_grpc.add_InferenceServicer_to_server, InferenceServicer(gate))
    port = await server.start([SERVICE])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield inference_pb2_grpc.InferenceStub(channel)
    await server.stop()


@pytest.fixture
def drafts(loads):
    found = {name: FakeDraft(name, fill) for name, fill in (("one", "1"), ("two", "2"))}
    loads.update({draft.digest: draft for draft in found.values()})
    return found


async def _refused(call, code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == code
    return caught.value.details()


async def _collect(call) -> list[pb.GenerateResponse]:
    return [response async for response in call]


async def test_generate_streams_and_ends_with_usage(stub, worker, tokenizer):
    tokens = tokenizer.backend_tokenizer.encode("hello 世界").ids
    worker.steps = [(token,) for token in tokens]
    request = pb.GenerateRequest(
        prompt="hello", max_tokens=30, top_p=0.5, top_k=3, seed=9, tenant="acme", no_train=True
    )
    responses = await _collect(stub.Generate(request, timeout=10))
    assert "".join(response.text for response in responses) == "hello 世界"
    assert [token for response in responses for token in response.token_ids] == tokens
    assert all(not response.finish_reason for response in responses[:-1])
    last = responses[-1]
    assert (last.finish_reason, last.usage.completion_tokens) == ("length", len(tokens))
    assert (last.speculation.draft, last.speculation.steps) == ("ckpt-7", 4)
    assert last.speculation.ngram_drafted_tokens == 5
    assert last.speculation.ngram_accepted_tokens == 2
    sent = worker.requests[0]
    assert (sent.sampling.temperature, sent.sampling.top_p) == (0.0, 0.5)
    assert (sent.sampling.top_k, sent.sampling.seed) == (3, 9)
    assert (sent.tenant, sent.record, sent.max_tokens) == ("acme", False, 30)


async def test_an_absent_top_p_is_the_models(stub, worker, serving):
    serving.text.model = replace(serving.text.model, sampling=Sampling(0.6, 0.95, 20))
    worker.steps = [(5,)]
    for given, expected in (({}, 0.95), ({"top_p": 1.0}, 1.0)):
        request = pb.GenerateRequest(prompt="hello", max_tokens=5, **given)
        await _collect(stub.Generate(request, timeout=10))
        sampling = worker.requests[-1].sampling
        assert sampling.top_p == pytest.approx(expected)
        # Without presence on the wire, 0 is a value: greedy, off.
        assert (sampling.temperature, sampling.top_k) == (0.0, 0)


async def test_tokens_go_in_and_a_stop_string_ends_it(stub, worker, tokenizer):
    worker.steps = [tuple(tokenizer.backend_tokenizer.encode("hello STOP words").ids)]
    worker.finish = None
    request = pb.GenerateRequest(
        prompt_tokens=pb.TokenIds(ids=[5, 6]), max_tokens=30, stop=["STOP"], model=MODEL
    )
    responses = await _collect(stub.Generate(request, timeout=10))
    assert "".join(response.text for response in responses) == "hello "
    assert responses[-1].finish_reason == "stop"
    assert worker.requests[0].prompt_tokens == (5, 6)


async def test_cancelling_the_call_cancels_the_request(stub, worker):
    worker.steps, worker.finish = [(5,), (6,)], None
    call = stub.Generate(pb.GenerateRequest(prompt="hello", max_tokens=5), timeout=30)
    await call.read()
    call.cancel()
    async with asyncio.timeout(10):
        await worker.cancelled.wait()


async def test_the_deadline_cancels_the_request(stub, worker):
    worker.steps, worker.finish = [(5,)], None
    call = stub.Generate(pb.GenerateRequest(prompt="hello", max_tokens=5), timeout=0.2)
    await _refused(_collect(call), grpc.StatusCode.DEADLINE_EXCEEDED)
    async with asyncio.timeout(10):
        await worker.cancelled.wait()


@pytest.mark.parametrize(
    ("request_", "code", "says"),
    [
        (pb.GenerateRequest(max_tokens=5), grpc.StatusCode.INVALID_ARGUMENT, "prompt"),
        (pb.GenerateRequest(prompt="a"), grpc.StatusCode.INVALID_ARGUMENT, "max_tokens"),
        (
            pb.GenerateRequest(prompt="a", max_tokens=CONTEXT_TOKENS + 1),
            grpc.StatusCode.INVALID_ARGUMENT,
            "context",
        ),
        (
            pb.GenerateRequest(prompt="a", max_tokens=5, stop=["a"] * 5),
            grpc.StatusCode.INVALID_ARGUMENT,
            "stop",
        ),
        (
            pb.GenerateRequest(prompt="a", max_tokens=5, model="other"),
            grpc.StatusCode.NOT_FOUND,
            "other",
        ),
    ],
)
async def test_refused_requests(stub, request_, code, says):
    assert says in await _refused(_collect(stub.Generate(request_, timeout=10)), code)


async def test_full_queue_is_resource_exhausted(stub, worker):
    worker.full = True
    call = stub.Generate(pb.GenerateRequest(prompt="a", max_tokens=5), timeout=10)
    await _refused(_collect(call), grpc.StatusCode.RESOURCE_EXHAUSTED)


async def test_a_rollout_from_stage_to_promotion_each_call_twice(stub, worker, drafts):
    stable, candidate = drafts["one"], drafts["two"]
    for _ in range(2):
        await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_STABLE, draft=_message(stable)))
        await stub.StageDraft(
            pb.StageDraftRequest(slot=pb.SLOT_CANDIDATE, draft=_message(candidate))
        )
    for _ in range(2):
        await stub.SetTraffic(pb.SetTrafficRequest(rollout_id="r1", candidate_bps=500))
    status = await stub.GetStatus(pb.GetStatusRequest())
    assert (status.stable, status.candidate) == (_message(stable), _message(candidate))
    assert (status.rollout_id, status.candidate_bps) == ("r1", 500)
    assert (status.model, status.target_digest) == (MODEL, "sha256:target")
    assert status.max_context_tokens == CONTEXT_TOKENS

    response = await stub.PromoteDraft(pb.PromoteDraftRequest(digest=candidate.digest))
    assert response.pause_microseconds == 7
    await stub.PromoteDraft(pb.PromoteDraftRequest(digest=candidate.digest))
    status = await stub.GetStatus(pb.GetStatusRequest())
    assert status.stable == _message(candidate)
    assert not status.HasField("candidate")
    for _ in range(2):
        await stub.UnstageDraft(pb.UnstageDraftRequest())


async def test_a_draft_is_retained_before_it_leaves_its_slot_without_being_read_again(
    stub, drafts, loads
):
    stable, candidate = drafts["one"], drafts["two"]
    await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_STABLE, draft=_message(stable)))
    await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_CANDIDATE, draft=_message(candidate)))
    loads.clear()
    for _ in range(2):
        await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_RETAINED, draft=_message(stable)))
    await stub.PromoteDraft(pb.PromoteDraftRequest(digest=candidate.digest))
    status = await stub.GetStatus(pb.GetStatusRequest())
    assert [(each.draft, each.share_bps) for each in status.retained] == [(_message(stable), 0)]
    # And so it is stable again.
    await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_STABLE, draft=_message(stable)))
    for _ in range(2):
        await stub.UnstageDraft(pb.UnstageDraftRequest(digest=stable.digest))
    status = await stub.GetStatus(pb.GetStatusRequest())
    assert status.stable == _message(stable)
    assert not status.retained


async def test_calls_that_conflict_with_the_state_are_refused(stub, drafts):
    traffic = stub.SetTraffic(pb.SetTrafficRequest(rollout_id="r1", candidate_bps=500))
    assert "stage" in await _refused(traffic, grpc.StatusCode.FAILED_PRECONDITION)
    promote = stub.PromoteDraft(pb.PromoteDraftRequest(digest=drafts["two"].digest))
    assert "none" in await _refused(promote, grpc.StatusCode.FAILED_PRECONDITION)


async def test_a_refused_checkpoint_leaves_the_stable_serving(stub, drafts, loads):
    stable = _message(drafts["one"])
    await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_STABLE, draft=stable))
    broken = FakeDraft("broken", "f")
    loads[broken.digest] = CheckpointError("checkpoint broken has weights that are not finite")
    for slot in (pb.SLOT_CANDIDATE, pb.SLOT_STABLE):
        call = stub.StageDraft(pb.StageDraftRequest(slot=slot, draft=_message(broken)))
        assert "not finite" in await _refused(call, grpc.StatusCode.FAILED_PRECONDITION)
    status = await stub.GetStatus(pb.GetStatusRequest())
    assert status.stable == stable
    assert not status.HasField("candidate")


async def test_a_draft_staged_without_a_digest_takes_its_manifests(stub, drafts, loads):
    loads[""] = drafts["one"]
    draft = pb.Draft(name="first", uri="file:///models/one")
    await stub.StageDraft(pb.StageDraftRequest(slot=pb.SLOT_STABLE, draft=draft))
    status = await stub.GetStatus(pb.GetStatusRequest())
    assert status.stable == _message(drafts["one"])


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (pb.StageDraftRequest(), "SLOT_STABLE"),
        (pb.StageDraftRequest(slot=pb.SLOT_STABLE, draft=pb.Draft(digest="x")), "64 hex"),
        (
            pb.StageDraftRequest(
                slot=pb.SLOT_STABLE, draft=pb.Draft(digest="sha256:" + "a" * 64, uri="ftp://x")
            ),
            "ftp://x",
        ),
    ],
)
async def test_an_invalid_draft_reference_is_refused(stub, request_, says):
    call = stub.StageDraft(request_)
    assert says in await _refused(call, grpc.StatusCode.INVALID_ARGUMENT)


async def test_outcomes_are_paged_by_a_cursor_of_the_instance(stub, worker, drafts):
    engine = worker.engine
    engine.stage("candidate", drafts["two"])
    engine.slots.split("r1", 5000)
    for accepted in range(5):
        engine.slots.end(
            engine.slots.assign(0.0),
            "completed",
            Served(8, accepted, 2**40, 1500, step_time_us=2**40, stable_step_time_us=9),
        )
    engine.slots.assign(0.0)
    first = await stub.ListOutcomes(pb.ListOutcomesRequest(rollout_id="r1", limit=3))
    assert [outcome.accepted_tokens for outcome in first.outcomes] == [0, 1, 2]
    # As much as the message can hold.
    assert {(each.time_to_first_token_us, each.step_time_us) for each in first.outcomes} == {
        (2**32 - 1, 2**32 - 1)
    }
    assert {each.stable_step_time_us for each in first.outcomes} == {9}
    assert (first.unlisted_stable, first.unlisted_candidate) == (0, 3)
    assert {(each.arm, each.candidate_digest, each.ending) for each in first.outcomes} == {
        ("candidate", drafts["two"].digest, "completed")
    }
    rest = await stub.ListOutcomes(
        pb.ListOutcomesRequest(rollout_id="r1", instance=first.instance, after=first.next_after)
    )
    assert [outcome.accepted_tokens for outcome in rest.outcomes] == [3, 4]
    none = await stub.ListOutcomes(
        pb.ListOutcomesRequest(rollout_id="r1", instance=rest.instance, after=rest.next_after)
    )
    assert (len(none.outcomes), none.next_after) == (0, rest.next_after)
    other = await stub.ListOutcomes(
        pb.ListOutcomesRequest(rollout_id="r1", instance="gone", after=4)
    )
    assert len(other.outcomes) == 5


async def test_counters_by_arm(stub):
    counters = await stub.GetCounters(pb.GetCountersRequest())
    stable = next(arm for arm in counters.arms if arm.arm == "stable")
    assert (stable.drafted_tokens, stable.accepted_tokens, stable.verify_steps) == (20, 9, 5)
    ngram = counters.ngram
    assert (ngram.drafted_tokens, ngram.accepted_tokens, ngram.verify_steps) == (9, 4, 3)
    assert (counters.instance, counters.running_requests) == ("instance-1", 1)


class TestWhileLoading:
    @pytest.fixture
    def gate(self):
        from aurora_inference.serving.gate import Gate

        return Gate()

    async def test_calls_are_unavailable(self, stub):
        call = stub.GetStatus(pb.GetStatusRequest())
        assert "loading" in await _refused(call, grpc.StatusCode.UNAVAILABLE)
