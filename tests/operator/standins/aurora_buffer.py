"""Stands in for Redis (answers PING) and for the buffer (answers health)."""

import asyncio
import sys

from aurora_common import leash
from aurora_common.grpc_server import GrpcServer, stop_signal


async def redis(socket):
    stop = stop_signal()

    async def answer(reader, writer):
        await reader.readline()
        writer.write(b"+PONG\r\n")
        writer.close()

    server = await asyncio.start_unix_server(answer, socket)
    await stop.wait()
    server.close()


async def serve(address):
    stop = stop_signal()
    server = GrpcServer(address, drain_seconds=0.1)
    await server.start([])
    await stop.wait()
    await server.stop()


if __name__ == "__main__":
    leash.follow()
    flags = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    if sys.argv[1] == "redis":
        asyncio.run(redis(flags["--socket"]))
    else:
        asyncio.run(serve(flags["--listen"]))
