"""What every component's gRPC server answers by itself."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2 as pb

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_common.grpc_server import GrpcServer

HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_the_services(version):
    server = GrpcServer("127.0.0.1:0", drain_seconds=0.1)
    port = await server.start([])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=pb.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.ServerReflectionResponse.FromString,
        )
        wanted = [
            pb.ServerReflectionRequest(list_services=""),
            pb.ServerReflectionRequest(file_containing_symbol=HEALTH),
        ]
        listed, described = [answer async for answer in ask(iter(wanted))]
    assert HEALTH in {service.name for service in listed.list_services_response.service}
    assert described.file_descriptor_response.file_descriptor_proto
    await server.stop()


async def test_a_watch_of_the_health_does_not_delay_the_stop():
    server = GrpcServer("127.0.0.1:0", drain_seconds=600)
    port = await server.start([])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        answers = aiter(watch)
        assert (await anext(answers)).status == health_pb2.HealthCheckResponse.SERVING
        async with asyncio.timeout(60):
            await server.stop()


async def test_a_call_in_flight_is_answered_before_the_stop():
    begun, proceed = asyncio.Event(), asyncio.Event()

    class Buffer(buffer_pb2_grpc.BufferServicer):
        async def GetStats(self, request, context):  # noqa: N802
            begun.set()
            await proceed.wait()
            return buffer_pb2.GetStatsResponse(entries=7)

    server = GrpcServer("127.0.0.1:0", drain_seconds=600)
    server.add(buffer_pb2_grpc.add_BufferServicer_to_server, Buffer())
    port = await server.start(["aurora.buffer.v1.Buffer"])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = buffer_pb2_grpc.BufferStub(channel)
        answer = asyncio.ensure_future(stub.GetStats(buffer_pb2.GetStatsRequest(), timeout=60))
        await begun.wait()
        stopped = asyncio.create_task(server.stop())
        await asyncio.wait((stopped,), timeout=0.5)
        assert not stopped.done()
        proceed.set()
        assert (await answer).entries == 7
        await stopped
