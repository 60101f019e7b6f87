"""A small real component: gRPC health on an address, until SIGTERM. Started by the tests.

SIGUSR1 makes it unable to serve.

component.py ADDRESS [--fail] [--refuse] [--load] [--stubborn]
"""

import asyncio
import signal
import sys

from aurora_common import leash
from aurora_common.grpc_server import GrpcServer, stop_signal


async def serve(address):
    stop = stop_signal()
    if "--stubborn" in sys.argv:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = GrpcServer(address, drain_seconds=0.1)
    if "--load" in sys.argv:
        sys.stderr.write('{"message": "loading", "progress": "loading weights: 1 of 9 GB"}\n')
        sys.stderr.flush()
        await asyncio.sleep(1)
    await server.start([])
    sys.stderr.write("serving\n")
    unable = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, unable.set)
    stopping = asyncio.create_task(stop.wait())
    told = asyncio.create_task(unable.wait())
    await asyncio.wait({stopping, told}, return_when=asyncio.FIRST_COMPLETED)
    if unable.is_set():
        sys.stderr.write('{"message": "not serving", "reason": "no space left"}\n')
        await server.set_serving(False)
        await stopping
    await server.stop()
    sys.stderr.write("drained\n")


def main():
    leash.follow()
    if "--fail" in sys.argv:
        sys.stderr.write('{"message": "warming up"}\nno space left on the device\n')
        sys.exit(1)
    if "--refuse" in sys.argv:
        sys.stderr.write("no model in /nowhere\n")
        sys.exit(78)
    asyncio.run(serve(sys.argv[1]))


if __name__ == "__main__":
    main()
