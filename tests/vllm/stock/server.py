"""A stock vLLM with the plugin, as a user starts it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import psutil

from aurora_common.checkpoint import CheckpointManifest
from aurora_common.port import free_port

# The folder of the environment that tools/vllm/setup.sh makes.
VARIABLE = "AURORA_VLLM"
SPECULATION_LENGTH = 4
KEY = "secret"
MODEL = "tiny"
_START_SECONDS = 600


@dataclass(frozen=True)
class Server:
    port: int
    log: Path
    pid: int

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its engine computes nothing meanwhile; its front answers."""
        engine = psutil.Process(self.pid).children(recursive=True)
        for process in engine:
            process.suspend()
        try:
            yield
        finally:
            for process in engine:
                process.resume()

    @asynccontextmanager
    async def client(self, key: str | None = KEY) -> AsyncIterator[Client]:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{self.port}",
            headers=headers,
            timeout=aiohttp.ClientTimeout(120),
            # vLLM closes an idle connection after 5 s, perhaps just as it is used again.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
        ) as session:
            yield Client(session)


@dataclass
class Completion:
    """What a streamed completion said; `steps`: accepted and drafted tokens per verify step."""

    tokens: list[int] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    finish_reason: str | None = None


@dataclass(frozen=True)
class Client:
    session: aiohttp.ClientSession

    async def call(self, verb: str, **body: Any) -> tuple[int, Any]:
        """Status and JSON of a route under /v1/aurora; without a body it is read."""
        method = "POST" if body else "GET"
        json_body = body or None
        async with self.session.request(method, f"/v1/aurora/{verb}", json=json_body) as answer:
            return answer.status, await answer.json()

    async def ok(self, verb: str, **body: Any) -> Any:
        status, answer = await self.call(verb, **body)
        assert status == 200, answer
        return answer

    async def metrics(self) -> str:
        async with self.session.get("/metrics") as answer:
            return await answer.text()

    async def stage(self, draft: CheckpointManifest) -> Any:
        return await self.ok("stage", digest=draft.digest, name=draft.name, path=draft.name)

    async def only(self, draft: CheckpointManifest) -> None:
        """Makes a draft the live one, whatever is there, and frees the place beside it."""
        await self._free()
        await self.stage(draft)
        await self.ok("activate", digest=draft.digest, reset=True)
        await self._free()

    async def _free(self) -> None:
        for staged in (await self.ok("status"))["staged"]:
            await self.ok("unstage", digest=staged["digest"])

    async def capture(self, *, ack: int | None = None) -> tuple[dict[str, Any], bytes]:
        """The header of a batch and the bytes behind it."""
        body = {"max_bytes": 1 << 22, "ack": ack}
        async with self.session.post("/v1/aurora/capture", json=body) as answer:
            content = await answer.read()
            assert answer.status == 200, content
        length = int.from_bytes(content[:4], "little")
        return json.loads(content[4 : 4 + length]), content[4 + length :]

    async def complete(self, prompt: Sequence[int], tokens: int, **more: Any) -> Completion:
        """Streams a greedy completion of exactly `tokens` tokens, unless `more` says otherwise."""
        body = {
            "model": MODEL,
            "prompt": list(prompt),
            "max_tokens": tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        completion = Completion()
        async with self.session.post("/v1/completions", json=body | more) as answer:
            assert answer.status == 200, await answer.text()
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    _take(completion, json.loads(line[6:]))
        return completion


def _take(completion: Completion, chunk: dict[str, Any]) -> None:
    assert "error" not in chunk, chunk
    for choice in chunk["choices"]:
        completion.tokens += choice.get("token_ids") or []
        completion.finish_reason = choice["finish_reason"] or completion.finish_reason
    if metrics := chunk.get("metrics"):
        speculation = metrics["speculative_decoding"]
        completion.steps = list(
            zip(
                speculation.get("per_step_accepted", ()),
                speculation.get("per_step_drafted", ()),
                strict=True,
            )
        )


@contextmanager
def serving(
    *,
    target: Path,
    draft: Path,
    store: Path,
    python_path: Sequence[Path],
    log: Path,
    method: str = "draft_model",
    nodes: int = 1,
) -> Iterator[Server]:
    """A vLLM on a free port of loopback, ended with the block; fails with its log.

    With two `nodes` each computes half of every layer, as on machines of their own.
    """
    speculation = {
        "method": method,
        "model": str(draft),
        "num_speculative_tokens": SPECULATION_LENGTH,
    }
    port = free_port()
    executable = Path(os.environ[VARIABLE]) / "bin" / "vllm"
    command = [
        *(str(executable), "serve", str(target), "--served-model-name", MODEL),
        *("--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "512", "--max-num-seqs", "16", "--max-logprobs", "64"),
        # Long prompts are computed in pieces.
        *("--max-num-batched-tokens", "512"),
        *("--speculative-config", json.dumps(speculation)),
        *("--worker-extension-cls", "aurora_vllm.worker.AuroraWorker"),
        *("--per-request-spec-decode-metrics", "detailed", "--enable-force-include-usage"),
        "--enable-server-load-tracking",
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, python_path)),
        "VLLM_PLUGINS": "aurora",
        "VLLM_API_KEY": KEY,
        "VLLM_USE_V2_MODEL_RUNNER": "0",
        "AURORA_VLLM_STORE": str(store),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    if nodes > 1:
        command += ["--tensor-parallel-size", str(nodes), "--nnodes", str(nodes)]
        command += ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    front = [*command, "--host", "127.0.0.1", "--port", str(port)]
    with log.open("wb") as output, ExitStack() as ended:
        for rank in range(1, nodes):
            rest = [*command, "--node-rank", str(rank), "--headless"]
            ended.enter_context(_running(rest, environment, output))
        process = ended.enter_context(_running(front, environment, output))
        _wait(process, port, log)
        yield Server(port, log, process.pid)


@contextmanager
def _running(
    command: Sequence[str], environment: dict[str, str], output: BinaryIO
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            # Its engine and workers, should they be left.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"vLLM does not serve:\n{log.read_text()[-4000:]}")


async def gathered(*work: Any) -> list[Any]:
    """All results of concurrent work; the first exception ends it."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
    return [task.result() for task in tasks]
