"""An inference server that benchmarks send requests to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.process import component, wait_until_serving
from benchmarks.workload import Workload

from aurora_common.port import free_port


@dataclass(frozen=True, slots=True)
class Server:
    """HOST:PORT of the clients' two ports and of the operator's; `pid` is the process."""

    http: str
    grpc: str
    control: str
    pid: int


@contextmanager
def serving(work: Workload, *flags: str) -> Iterator[Server]:
    """An inference server with the static draft, in a context of 512 tokens."""
    http, grpc, control = (f"127.0.0.1:{free_port()}" for _ in range(3))
    with component(
        "aurora_inference",
        *("--target", str(work.target), "--dtype", work.dtype_name, "--model-name", "bench"),
        *("--http-listen", http, "--grpc-listen", grpc, "--control-listen", control),
        *("--draft", str(work.static_draft), "--draft-digest", work.draft_named("static").digest),
        *("--max-context-tokens", "512"),
        *flags,
    ) as pid:
        wait_until_serving(grpc)
        yield Server(http, grpc, control, pid)
