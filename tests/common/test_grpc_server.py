"""What every component's gRPC server answers by itself."""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

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
