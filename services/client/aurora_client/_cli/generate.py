"""`aurora generate`: one completion, streamed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from aurora_client._cli.place import (
    DEFAULT_DATA_FOLDER,
    Address,
    DataFolder,
    Token,
    UsesTls,
    read_place,
)
from aurora_client._cli.terminal import note, write_text
from aurora_client._client import AuroraClient
from aurora_client._completion import Chunk, Speculation, joined
from aurora_client._connection import Tls


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; - reads standard input.")],
    address: Address = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
    token: Token = None,
    tls: UsesTls = False,
    max_tokens: Annotated[int, typer.Option(help="Most tokens to generate.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Nucleus; 1 is off.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="0 is off.")] = 0,
    seed: Annotated[
        int | None, typer.Option(help="The same text for the same seed. Default: random.")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="String that ends the completion; repeatable.")
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Continue past the end token.")
    ] = False,
    domain: Annotated[str, typer.Option(help="Label of the recorded trajectory.")] = "",
    no_train: Annotated[bool, typer.Option("--no-train", help="Record no trajectory.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds for the whole completion.")] = 600.0,
    stats: Annotated[
        bool, typer.Option("--stats", help="Report speed and acceptance on standard error.")
    ] = False,
) -> None:
    """Complete a prompt and stream the text to standard output."""
    address = address or read_place(data_dir).grpc
    chunks: list[Chunk] = []
    started_at = time.perf_counter()
    first_at = started_at
    with AuroraClient(address, token=token, tls=Tls() if tls else None) as client:
        stream = client.generate(
            sys.stdin.read() if prompt == "-" else prompt,
            stream=True,
            timeout=timeout,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
            stop=stop or (),
            ignore_eos=ignore_eos,
            domain=domain,
            no_train=no_train,
        )
        with stream:
            try:
                for chunk in stream:
                    if not chunks:
                        first_at = time.perf_counter()
                    chunks.append(chunk)
                    write_text(chunk.text)
            finally:
                # Whatever follows, a message or the shell's prompt, starts on a new line.
                if chunks:
                    write_text("\n")
    if stats:
        note(_report(chunks, address, first_at - started_at, time.perf_counter() - started_at))


def _report(chunks: list[Chunk], address: str, first_seconds: float, seconds: float) -> str:
    completion = joined(chunks, address=address)
    count = completion.usage.completion_tokens
    speed = (
        f"{count} tokens in {seconds:.2f} s ({count / seconds:.1f} a second), "
        f"the first after {first_seconds * 1e3:.0f} ms, ended by {completion.finish_reason}"
    )
    return "\n".join((speed, *_drafted(completion.speculation)))


def _drafted(speculation: Speculation) -> Iterator[str]:
    draft = f"{speculation.draft} ({speculation.arm})"
    sources = [
        (draft, speculation.acceptance_rate, speculation.drafted_tokens),
        ("n-grams", speculation.ngram_acceptance_rate, speculation.ngram_drafted_tokens),
    ]
    shares = [
        f"{name}: {rate:.1%} of {drafted} drafted tokens accepted"
        for name, rate, drafted in sources
        if rate is not None
    ]
    if not shares:
        yield "nothing drafted" if speculation.draft else "no draft"
        return
    yield from shares[:-1]
    yield f"{shares[-1]}, {speculation.mean_acceptance_length or 1:.2f} tokens a step"
