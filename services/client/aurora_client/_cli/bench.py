"""`aurora bench`: puts a load on a server and measures it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import httpx2
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aurora_client._async_client import AsyncAuroraClient
from aurora_client._bench.grpc_endpoint import GrpcEndpoint
from aurora_client._bench.http_endpoint import HttpEndpoint, served_model
from aurora_client._bench.load import Endpoint, Sample, run_load
from aurora_client._bench.prompt import prompts_of_file, synthetic_prompts
from aurora_client._bench.result import Figure, failures_of, figures_of, report_json
from aurora_client._cli.place import DEFAULT_DATA_FOLDER, DataFolder, Token, UsesTls, read_place
from aurora_client._cli.run import CommandError
from aurora_client._cli.shape import percent, plain_table
from aurora_client._cli.terminal import show
from aurora_client._connection import Tls, authorization
from aurora_client._policy import Retry, Timeout
from aurora_client._request import GenerateOptions


class Api(StrEnum):
    """Which of a server's two APIs to call."""

    GRPC = "grpc"
    OPENAI = "openai"


@dataclass(frozen=True, slots=True)
class Load:
    """What to send where; `warmup` requests go first, one at a time, and are not counted."""

    api: Api
    address: str
    token: str | None = field(repr=False)
    tls: bool
    prompts: list[str]
    warmup: int
    concurrency: int
    options: GenerateOptions
    timeout_seconds: float


def bench(
    api: Annotated[Api, typer.Option(help="gRPC, or any OpenAI-compatible server.")] = Api.OPENAI,
    address: Annotated[
        str | None,
        typer.Option(help="host:port or URL of the server; default: from --data-dir."),
    ] = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
    token: Token = None,
    tls: UsesTls = False,
    requests: Annotated[
        int, typer.Option("--requests", "-n", min=1, help="Number of requests.")
    ] = 64,
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, help="Requests in flight.")
    ] = 4,
    warmup: Annotated[int, typer.Option(min=0, help="Uncounted requests sent first.")] = 2,
    prompts: Annotated[
        Path | None, typer.Option(help="File of prompts, one per line; default: random words.")
    ] = None,
    prompt_words: Annotated[int, typer.Option(min=1, help="Words in a random prompt.")] = 64,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens to generate.")] = 64,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random prompts.")] = 0,
    stop_at_eos: Annotated[
        bool, typer.Option("--stop-at-eos", help="Let completions end at the end token.")
    ] = False,
    train: Annotated[
        bool, typer.Option("--train", help="Let Aurora learn from this traffic.")
    ] = False,
    model: Annotated[str, typer.Option(help="Default: the first one served.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds per request.")] = 120.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures to FILE.")
    ] = None,
) -> None:
    """Measure a server: throughput, time to first token, time per output token."""
    if address is None:
        place = read_place(data_dir)
        address = place.grpc if api is Api.GRPC else place.http
    count = requests + warmup
    texts = (
        synthetic_prompts(count, words=prompt_words, seed=seed)
        if prompts is None
        else prompts_of_file(prompts, count)
    )
    options = GenerateOptions(
        max_tokens=max_tokens,
        temperature=temperature,
        ignore_eos=not stop_at_eos,
        no_train=not train,
        model=model,
    )
    load = Load(api, address, token, tls, texts, warmup, concurrency, options, timeout)
    samples = asyncio.run(_run(load))
    figures = figures_of(samples)
    show(_table(figures))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(report_json(_command(token), figures), encoding="utf-8")
    failures = failures_of(samples)
    if failures:
        raise CommandError(f"of {len(samples)} requests failed: {failures}")


async def _run(load: Load) -> list[Sample]:
    progress = Progress(console=Console(stderr=True), transient=True)
    async with AsyncExitStack() as stack:
        endpoint = await _endpoint(load, stack)
        await run_load(
            endpoint, load.prompts[: load.warmup], concurrency=1, on_sample=lambda _: None
        )
        counted = load.prompts[load.warmup :]
        if sys.stderr.isatty():
            stack.enter_context(progress)
        task = progress.add_task("requests", total=len(counted))
        return await run_load(
            endpoint,
            counted,
            concurrency=load.concurrency,
            on_sample=lambda _: progress.advance(task),
        )


async def _endpoint(load: Load, stack: AsyncExitStack) -> Endpoint:
    """Raises AuroraClientError if the server does not answer, before any load starts."""
    if load.api is Api.GRPC:
        client = await stack.enter_async_context(
            AsyncAuroraClient(
                load.address,
                timeout=Timeout(generate_seconds=load.timeout_seconds),
                retry=Retry(retries=0),
                token=load.token,
                tls=Tls() if load.tls else None,
            )
        )
        await client.status()
        return GrpcEndpoint(client, load.options)
    scheme = "https" if load.tls else "http"
    url = load.address if "://" in load.address else f"{scheme}://{load.address}"
    limits = httpx2.Limits(max_connections=load.concurrency)
    http = await stack.enter_async_context(
        httpx2.AsyncClient(
            # People also paste the base URL that OpenAI's own client takes.
            base_url=url.rstrip("/").removesuffix("/v1"),
            timeout=load.timeout_seconds,
            limits=limits,
            headers={} if load.token is None else {"authorization": authorization(load.token)},
        )
    )
    model = load.options.get("model") or await served_model(http)
    return HttpEndpoint(http, load.options, model)


def _command(token: str | None) -> list[str]:
    """This command line without the token, since reports are shared."""
    arguments = ["aurora", *sys.argv[1:]]
    return [text.replace(token, "***") for text in arguments] if token else arguments


def _table(figures: Mapping[str, Figure]) -> Table:
    table = plain_table("figure")
    for header in ("value", "least", "most"):
        table.add_column(header, justify="right")
    for name, figure in figures.items():
        low, high = figure.spread
        is_one = low == high == figure.value
        table.add_row(
            name.replace("_", " "),
            _shown(figure.value, figure.unit),
            "" if is_one else _shown(low, figure.unit),
            "" if is_one else _shown(high, figure.unit),
        )
    return table


def _shown(value: float, unit: str) -> str:
    match unit:
        case "share":
            return percent(value)
        case "requests" | "tokens":
            return f"{value:,.0f}"
        case _:
            return f"{value:,.2f} {unit}"
