"""What an inference lists, as the evidence that the plan counts."""

import pytest

from aurora.inference.v1 import inference_pb2, inference_pb2_grpc
from aurora_common.grpc_server import GrpcServer
from aurora_operator.adapters.channel import Peer
from aurora_operator.adapters.inference import GrpcInference
from aurora_operator.domain.plan.action import SetTraffic
from aurora_operator.domain.rollout.outcome import Block, Outcome, Pair


class Listing(inference_pb2_grpc.InferenceServicer):
    def __init__(self):
        self.outcomes = []
        self.splits = []

    async def SetTraffic(self, request, context):  # noqa: N802
        self.splits.append(request)
        return inference_pb2.SetTrafficResponse()

    async def ListOutcomes(self, request, context):  # noqa: N802
        found = [each for each in self.outcomes if each.sequence > request.after]
        last = found[-1].sequence if found else request.after
        return inference_pb2.ListOutcomesResponse(instance="1", outcomes=found, next_after=last)


def block(sequence, pair, arm, **counts):
    return inference_pb2.Outcome(
        sequence=sequence,
        arm=arm,
        pair=pair,
        stable_digest="sha256:a",
        candidate_digest="sha256:b",
        ending="completed",
        **counts,
    )


@pytest.fixture
async def listing():
    return Listing()


@pytest.fixture
async def inference(listing):
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    server.add(inference_pb2_grpc.add_InferenceServicer_to_server, listing)
    port = await server.start([])
    found = GrpcInference("pod-1", Peer(f"127.0.0.1:{port}"))
    yield found
    await found.close()
    await server.stop()


async def listed(inference):
    return (await inference.outcomes("chat-1", None)).outcomes


async def test_the_two_outcomes_of_a_pair_are_one(inference, listing):
    listing.outcomes = [
        block(1, 7, "candidate", requests=10, drafted_tokens=100, accepted_tokens=80),
        block(2, 7, "stable", requests=40, failed_requests=1, drafted_tokens=400),
    ]

    (found,) = await listed(inference)
    stable, candidate = Block(40, 1, 400, 0), Block(10, 0, 100, 80)
    assert found == (2, Pair(stable, candidate, "sha256:a", "sha256:b"))


async def test_half_a_pair_waits_for_the_other(inference, listing):
    listing.outcomes = [block(number, 1 + number // 3, "stable") for number in (1, 2, 3)]

    assert [sequence for sequence, _ in await listed(inference)] == [2]
    listing.outcomes.append(block(4, 2, "candidate"))
    assert [sequence for sequence, _ in await listed(inference)] == [2, 4]


async def test_requests_of_their_own_stay_so(inference, listing):
    listing.outcomes = [block(1, 0, "stable", candidate_bps=500), block(2, 0, "candidate")]

    (_, first), (_, second) = await listed(inference)
    assert isinstance(first, Outcome)
    assert (first.arm, first.candidate_bps, second.arm) == ("stable", 500, "candidate")


async def test_half_of_the_inferences_begin_with_the_other_arm(inference, listing):
    for crossed in (False, True):
        await inference.apply(SetTraffic("pod-1", "chat-1", 2000, crossed))

    assert [split.crossed for split in listing.splits] == [False, True]
