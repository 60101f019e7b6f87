"""`python -m aurora_buffer serve …` and `python -m aurora_buffer redis …`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aurora.buffer.v1 import buffer_pb2_grpc
from aurora_buffer.connection import connect
from aurora_buffer.health_check import HealthCheck
from aurora_buffer.metrics import Metrics
from aurora_buffer.redis_process import run_redis
from aurora_buffer.redis_server import FSYNC_POLICIES, RedisOptions, Sizes
from aurora_buffer.servicer import BufferServicer
from aurora_buffer.stream import Bounds, TrajectoryStream
from aurora_buffer.subscription import Subscriptions
from aurora_buffer.upkeep import Upkeep
from aurora_common import leash, log, variable
from aurora_common.admission import admit_problem, named_peers
from aurora_common.errors import AuroraError, InvalidInputError
from aurora_common.exposition import metrics_served
from aurora_common.flag import add_version_flag, address, listen_clash, whole
from aurora_common.grpc_server import GrpcServer, stop_signal
from aurora_common.kept_running import kept_running
from aurora_common.serving_flags import add_serving_flags
from aurora_common.tls import CertificateFolder

SERVICE = "aurora.buffer.v1.Buffer"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """The settings of `serve`."""

    listen: str
    redis_url: str
    redis_ca: Path | None
    # Of a Redis of its own, whose files are on this machine.
    redis_dir: Path | None
    tls: Path | None
    # The DNS names in the certificates of admitted clients; only with `tls`.
    admit: tuple[str, ...]
    health_listen: str | None
    bounds: Bounds
    stream: str
    dead_after_seconds: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code, 1 after an error, which is one line on stderr."""
    parsed = _parser().parse_args(arguments)
    log.configure()
    try:
        if parsed.command == "redis":
            return run_redis(_redis_options(parsed))
        listening = {
            "--listen": parsed.listen,
            "--health-listen": parsed.health_listen,
            "--metrics-listen": parsed.metrics_listen,
        }
        for problem in (
            admit_problem(has_tls=parsed.tls is not None, admit=parsed.admit),
            listen_clash(listening),
        ):
            if problem:
                raise InvalidInputError(problem)
        leash.follow()
        bounds = Bounds(max_bytes=parsed.max_bytes, max_age_seconds=parsed.max_age_seconds)
        options = ServeOptions(
            listen=parsed.listen,
            redis_url=_redis_url(parsed.redis_url),
            redis_ca=parsed.redis_ca,
            redis_dir=parsed.redis_dir,
            tls=parsed.tls,
            admit=tuple(parsed.admit),
            health_listen=parsed.health_listen,
            bounds=bounds,
            stream=parsed.stream,
            dead_after_seconds=parsed.dead_after_seconds,
        )
        metrics = Metrics()
        with metrics_served(parsed.metrics_listen, metrics.registry):
            asyncio.run(serve(options, metrics))
    except AuroraError as error:
        sys.stderr.write(f"aurora_buffer: {error}\n")
        return 1
    return 0


async def serve(options: ServeOptions, metrics: Metrics) -> None:
    """Serves until SIGTERM or SIGINT; reports NOT_SERVING while Redis is not able to serve it.

    Raises ConflictError if Redis would need another configuration for that.
    """
    stop = stop_signal()
    redis = connect(options.redis_url, authorities=options.redis_ca)
    stream = TrajectoryStream(redis, options.stream, options.bounds, metrics)
    subscriptions = Subscriptions(stream)
    server = GrpcServer(
        options.listen,
        admit=named_peers(options.admit, has_tls=options.tls is not None),
        certificates=None if options.tls is None else CertificateFolder(options.tls),
        health_address=options.health_listen,
    )
    server.add(
        buffer_pb2_grpc.add_BufferServicer_to_server,
        BufferServicer(stream, subscriptions, metrics),
    )
    upkeep = Upkeep(
        stream,
        subscriptions,
        HealthCheck(redis, options.stream),
        redis_dir=options.redis_dir,
        dead_after_seconds=options.dead_after_seconds,
        on_able=server.set_serving,
    )

    async def upkeep_ended() -> None:
        metrics.task_restarts.labels("upkeep").inc()
        await server.set_serving(False)

    await server.start([SERVICE], serving=False)
    work = asyncio.create_task(
        kept_running("upkeep", upkeep.run, on_end=upkeep_ended, fatal=(AuroraError,))
    )
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    subscriptions.close_all()
    await server.stop()
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    await redis.aclose()


def _redis_options(parsed: argparse.Namespace) -> RedisOptions:
    given = (parsed.max_bytes, parsed.storage_bytes, parsed.memory_bytes)
    if None in given and set(given) != {None}:
        raise InvalidInputError("give all of --max-bytes, --storage-bytes, --memory-bytes, or none")
    sizes = None if None in given else Sizes(*given)
    return RedisOptions(parsed.dir.absolute(), parsed.socket.absolute(), parsed.appendfsync, sizes)


def _redis_url(argument: str | None) -> str:
    url = argument or os.environ.get(variable.REDIS_URL, "")
    if not url:
        raise InvalidInputError(f"no Redis given: pass --redis-url or set {variable.REDIS_URL}")
    return url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="aurora_buffer", description=__doc__)
    add_version_flag(parser)
    commands = parser.add_subparsers(dest="command", required=True)

    serve_parser = commands.add_parser("serve", help="serve the buffer in front of a Redis")
    serve_parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT")
    serve_parser.add_argument(
        "--redis-url",
        metavar="URL",
        help=f"default: ${variable.REDIS_URL}, which keeps a password out of the process list",
    )
    serve_parser.add_argument(
        "--redis-ca", type=Path, metavar="FILE", help="CA certificates for a rediss:// server"
    )
    serve_parser.add_argument(
        "--redis-dir",
        type=Path,
        metavar="DIR",
        help="the files of a Redis that serves this buffer alone: appends are refused while their "
        "disk is full, and the oldest entries are dropped if Redis runs out of memory",
    )
    add_serving_flags(serve_parser)
    serve_parser.add_argument("--max-age-seconds", required=True, type=whole(1))
    serve_parser.add_argument("--max-bytes", required=True, type=whole(1))
    serve_parser.add_argument("--stream", default="aurora:trajectories", metavar="KEY")
    serve_parser.add_argument(
        "--dead-after-seconds",
        default=60,
        type=whole(1),
        help="a consumer without a subscription for this long loses its entries to a live one",
    )
    serve_parser.add_argument("--metrics-listen", type=address, metavar="HOST:PORT")

    redis_parser = commands.add_parser("redis", help="run a redis-server for one buffer")
    redis_parser.add_argument("--dir", required=True, type=Path, help="made private")
    redis_parser.add_argument(
        "--socket", required=True, type=Path, metavar="FILE", help="its Unix domain socket"
    )
    redis_parser.add_argument("--appendfsync", default="everysec", choices=FSYNC_POLICIES)
    for flag, what in (
        ("--max-bytes", "serve's --max-bytes"),
        ("--storage-bytes", "the size of its disk"),
        ("--memory-bytes", "the memory that it and this process may take"),
    ):
        redis_parser.add_argument(flag, type=whole(1), metavar="N", help=what)
    return parser


if __name__ == "__main__":
    sys.exit(main())
