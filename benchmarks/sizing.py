"""What to give each component: memory, disk and processor by the requests that it handles.

Redis and the buffer are filled with made-up requests of two lengths, as many as would be recorded,
delivered and acknowledged; memory is what the container's processes hold more than before, disk
what the folder does. Then the demo's models serve, record and learn from requests, short and long:
of what inference takes, the part by token is the model's, and the rest is the request's.
docs/sizing.md says what follows.

    python -m benchmarks.sizing [--quick] [--requests N] [--served N] [--steps N] [--idle N]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from benchmarks.buffer import DEPTH, trajectory
from benchmarks.option import Count, parse
from benchmarks.process import component, wait_until_serving
from benchmarks.report import Figure, exact_figure, write_report
from benchmarks.server import serving
from benchmarks.workload import Workload, workload

from aurora.buffer.v1 import buffer_pb2, buffer_pb2_grpc
from aurora_client import AuroraClient
from aurora_common.grpc_server import MESSAGE_OPTIONS
from aurora_common.port import free_port

# Prompt and output, in tokens.
LENGTHS = {"": (256, 96), "_long": (1024, 512)}
SHORT_TOKENS, LONG_TOKENS = 8, 72
STREAMS = 4
CALL_SECONDS = 120.0
PUBLISHED_SECONDS = 600.0
_POLL_SECONDS = 0.2
_MIB = 1 << 20
# Held back by the buffer for when the disk is full.
_RESERVE = "reserve"

Figures = dict[str, Figure]


@dataclass(frozen=True, slots=True)
class Store:
    """A buffer, its Redis, and the folder of the latter."""

    address: str
    buffer: int
    redis: int
    folder: Path

    @property
    def disk_bytes(self) -> int:
        files = (path for path in self.folder.rglob("*") if path.name != _RESERVE)
        return sum(path.stat().st_size for path in files if path.is_file())


@contextmanager
def stored() -> Iterator[Store]:
    """An empty store, as the buffer's pod has it."""
    address = f"127.0.0.1:{free_port()}"
    with (
        tempfile.TemporaryDirectory(prefix="aurora-bench-") as name,
        component(
            *("aurora_buffer", "redis", "--dir", name, "--socket", f"{name}/redis.sock"),
        ) as redis,
        component(
            *("aurora_buffer", "serve", "--listen", address),
            *("--redis-url", f"unix://{name}/redis.sock"),
            *("--max-age-seconds", "86400", "--max-bytes", str(8 << 30)),
        ) as buffer,
    ):
        wait_until_serving(address)
        yield Store(address, buffer, redis, Path(name))


def processes(pid: int) -> list[psutil.Process]:
    """A component's process and those that it started."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def processor_seconds(pid: int) -> float:
    times = [process.cpu_times() for process in processes(pid)]
    return sum(each.user + each.system for each in times)


def memory_bytes(pid: int) -> int:
    return sum(process.memory_info().rss for process in processes(pid))


def taken(pids: Mapping[str, int], work: Callable[[], None]) -> dict[str, float]:
    """The seconds of processor that each component takes during `work`."""
    before = {name: processor_seconds(pid) for name, pid in pids.items()}
    work()
    return {name: processor_seconds(pid) - before[name] for name, pid in pids.items()}


def fill(store: Store, count: int, *, suffix: str) -> Figures:
    """Stores requests of one length, and delivers and acknowledges them."""
    prompt, output = LENGTHS[suffix]
    pids = {"buffer": store.buffer, "redis": store.redis}
    memory, disk = memory_bytes(store.redis), store.disk_bytes
    with grpc.insecure_channel(store.address, options=MESSAGE_OPTIONS) as channel:
        stub = buffer_pb2_grpc.BufferStub(channel)  # type: ignore[no-untyped-call]
        appends = [
            buffer_pb2.AppendRequest(
                trajectories=[
                    trajectory(number, prompt_tokens=prompt, output_tokens=output)
                    for number in range(start, start + DEPTH)
                ]
            )
            for start in range(0, count, DEPTH)
        ]

        def append() -> None:
            stub.Append(iter(appends), timeout=CALL_SECONDS)

        def deliver() -> None:
            request = buffer_pb2.SubscribeRequest(group="sizing", consumer="sizing")
            missing = count
            stream = stub.Subscribe(request, timeout=CALL_SECONDS)
            while missing:
                ids = [entry.id for entry in next(stream).entries]
                stub.Ack(buffer_pb2.AckRequest(group="sizing", ids=ids), timeout=CALL_SECONDS)
                missing -= len(ids)
            stream.cancel()

        appended, delivered = taken(pids, append), taken(pids, deliver)
    per_1000 = 1000 / count
    memory = memory_bytes(store.redis) - memory
    disk = store.disk_bytes - disk
    figures = {
        f"redis_memory_mib_per_1000{suffix}": exact_figure(memory * per_1000 / _MIB, "MiB"),
        f"redis_disk_mib_per_1000{suffix}": exact_figure(disk * per_1000 / _MIB, "MiB"),
        f"request_kib{suffix}": exact_figure(
            sum(each.ByteSize() for each in appends) / count / 1024, "KiB"
        ),
    }
    for name in pids:
        seconds = (appended[name] + delivered[name]) * per_1000
        figures[f"{name}_processor_ms_per_request{suffix}"] = exact_figure(seconds, "ms")
    return figures


def serve(client: AuroraClient, prompts: tuple[tuple[int, ...], ...], tokens: int) -> None:
    """Decodes every prompt to a given length, a few at a time."""

    def complete(prompt: tuple[int, ...]) -> None:
        client.generate(prompt, max_tokens=tokens, temperature=0.0, ignore_eos=True)

    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(complete, prompts))


@contextmanager
def training(work: Workload, store: Store, *, count: int, steps: int) -> Iterator[tuple[int, Path]]:
    """A trainer that begins once it has `count` requests; its process, and where it publishes."""
    health = f"127.0.0.1:{free_port()}"
    with (
        tempfile.TemporaryDirectory(prefix="aurora-bench-") as name,
        component(
            *("aurora_trainer", "train", "--listen", f"127.0.0.1:{free_port()}"),
            *("--health-listen", health, "--buffer", store.address),
            *("--target", work.target.as_uri(), "--draft", work.static_draft.as_uri()),
            *("--models", f"{name}/models", "--state", f"{name}/state", "--objective", "LK"),
            *("--min-new-trajectories", str(count), "--min-interval-seconds", "0"),
            *("--learning-rate", "1e-4", "--batch-size", "16", "--holdout-percent", "5"),
            *("--steps-per-round", str(steps)),
        ) as pid,
    ):
        wait_until_serving(health)
        yield pid, Path(name) / "models"


def await_draft(models: Path) -> None:
    """Returns once a checkpoint is published; raises TimeoutError otherwise."""
    deadline = time.monotonic() + PUBLISHED_SECONDS
    while not any(models.glob("ckpt-*")):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing was published within {PUBLISHED_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


def live(work: Workload, store: Store, *, served: int, steps: int, idle: int) -> Figures:
    """Serves, records and learns from requests."""
    prompts = work.prompts(served)
    count = len(prompts)
    with (
        serving(work, "--buffer", store.address) as server,
        AuroraClient(server.grpc) as client,
    ):
        # The first time warms up, and is recorded as well.
        serve(client, prompts, SHORT_TOKENS)
        pids = {"inference": server.pid}
        short = taken(pids, lambda: serve(client, prompts, SHORT_TOKENS))["inference"]
        with training(work, store, count=5 * count // 2, steps=steps) as (trainer, models):
            began = processor_seconds(trainer)
            long = taken(pids, lambda: serve(client, prompts, LONG_TOKENS))["inference"]
            await_draft(models)
            learnt = processor_seconds(trainer) - began
            pids |= {"buffer": store.buffer, "redis": store.redis, "trainer": trainer}
            resting = taken(pids, lambda: time.sleep(idle))
            memory = {name: memory_bytes(pid) for name, pid in pids.items()}
    per_token = (long - short) / (count * (LONG_TOKENS - SHORT_TOKENS))
    per_request = short / count - SHORT_TOKENS * per_token
    return {
        "inference_processor_ms_per_request": exact_figure(1000 * per_request, "ms"),
        "inference_processor_ms_per_token": exact_figure(1000 * per_token, "ms"),
        "trainer_processor_seconds_per_step": exact_figure(learnt / steps, "s"),
        **{
            f"{name}_memory_mib": exact_figure(memory[name] / _MIB, "MiB")
            for name in ("inference", "buffer", "trainer")
        },
        **{
            f"{name}_idle_percent": exact_figure(100 * seconds / idle, "%")
            for name, seconds in resting.items()
        },
    }


def main() -> None:
    """Measures, prints, and writes out/bench/sizing.json."""
    options = parse(
        __doc__,
        {
            "requests": Count(4096, 64, "made up; a quarter as many long ones"),
            "served": Count(48, 4, "by the demo's models, three times"),
            "steps": Count(100, 2, "of training"),
            "idle": Count(30, 1, "seconds without requests"),
        },
    )
    figures: Figures = {}
    for suffix in LENGTHS:
        with stored() as store:
            count = options.requests // (4 if suffix else 1)
            figures |= fill(store, count, suffix=suffix)
    work = workload(quick=options.quick)
    with stored() as store:
        figures |= live(work, store, served=options.served, steps=options.steps, idle=options.idle)
    write_report("sizing", figures)


if __name__ == "__main__":
    main()
