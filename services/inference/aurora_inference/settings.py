"""The command line of an inference process."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aurora_common.admission import admit_problem
from aurora_common.flag import (
    add_device_flag,
    add_version_flag,
    host_port,
    listen_clash,
    whole,
)
from aurora_common.port import listening_host
from aurora_common.store.model_store import model_uri

Dtype = Literal["float32", "bfloat16"]
GenerationConfig = Literal["auto", "vllm"]


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen on or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The parsed command line of `python -m aurora_inference`.

    `target` and `draft` are model URIs; those of pvc://, like a staged draft's, need `claims`.
    `draft_digest`: the digest that `draft` must have; if empty, any. `buffer` None: trajectories
    are not recorded. `control_listen` None: nobody can change the drafts. `tls`
    applies to the control port and the buffer; `admit` names the clients of the control port.
    `max_context_tokens` None: the target's own, up to a default. `generation_config`, as in vLLM:
    `auto`, requests default to what the target's generation_config.json says; `vllm`, to neutral
    values.
    """

    target: str
    dtype: Dtype
    device: str
    gpu_memory_percent: int
    generation_config: GenerationConfig
    model_name: str
    http_listen: Address
    grpc_listen: Address
    draft: str | None
    draft_digest: str
    claims: Path | None
    buffer: Address | None
    control_listen: Address | None
    tls: Path | None
    admit: tuple[str, ...]
    tokens: Path | None
    drain_seconds: int
    max_speculation_length: int
    adaptive_speculation: bool
    max_batch: int
    max_waiting: int
    max_context_tokens: int | None
    sample_percent: int
    opt_out_header: str
    allowed_origins: tuple[str, ...]


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Parses a command line; on an error, prints it and exits with status 2."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.draft_digest and parsed.draft is None:
        parser.error("--draft-digest without --draft: give the draft too")
    check_front_flags(parser, parsed, ("--http-listen", "--grpc-listen", "--control-listen"))
    return Settings(**{**vars(parsed), "admit": tuple(parsed.admit)})


def add_front_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what every process that serves requests takes, whatever its engine."""
    add = parser.add_argument
    add("--http-listen", type=listening_address, required=True, metavar="HOST:PORT")
    add("--claims", type=Path, metavar="DIR", help="where claims are mounted; for pvc:// URIs")
    add("--buffer", type=listening_address, metavar="HOST:PORT", help="trajectory buffer")
    add(
        "--control-listen",
        type=listening_address,
        metavar="HOST:PORT",
        help="serve the verbs that change drafts and traffic here, for the operator",
    )
    add(
        "--tls",
        type=Path,
        metavar="DIR",
        help="ca.crt, tls.crt, tls.key: mutual TLS on --control-listen and to the buffer",
    )
    add(
        "--admit",
        action="append",
        default=[],
        metavar="NAME",
        help="DNS name of a client certificate that may call --control-listen; requires --tls; "
        "repeatable",
    )
    add(
        "--tokens",
        type=Path,
        metavar="DIR",
        help="require a bearer token from clients: the content of one of these files",
    )
    add("--drain-seconds", type=whole(0), default=6, metavar="S", help="for requests in flight")
    add(
        "--sample-percent",
        type=whole(0, 100),
        default=100,
        metavar="PERCENT",
        help="of requests whose trajectory is recorded",
    )
    add(
        "--opt-out-header",
        type=str.lower,
        default="x-aurora-no-train",
        metavar="NAME",
        help="HTTP header that opts a request out of recording",
    )


def check_front_flags(
    parser: argparse.ArgumentParser, parsed: argparse.Namespace, listening: Sequence[str]
) -> None:
    """Exits with status 2 if the front flags contradict each other; `listening`: flags of ports."""
    if parsed.tls is not None and parsed.control_listen is None:
        parser.error("--tls without --control-listen: give the port that it secures too")
    found = [getattr(parsed, flag.removeprefix("--").replace("-", "_")) for flag in listening]
    for problem in (
        admit_problem(has_tls=parsed.tls is not None, admit=parsed.admit),
        listen_clash({flag: at and str(at) for flag, at in zip(listening, found, strict=True)}),
    ):
        if problem:
            parser.error(problem)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aurora_inference",
        description="Serves one target model with two draft slots over gRPC and OpenAI's HTTP.",
        allow_abbrev=False,
    )
    add_version_flag(parser)
    add_front_flags(parser)
    add = parser.add_argument
    add(
        "--target",
        type=model_uri,
        required=True,
        metavar="URI",
        help="model in Hugging Face layout",
    )
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the target")
    add_device_flag(parser)
    add(
        "--gpu-memory-percent",
        type=whole(1, 100),
        default=90,
        metavar="PERCENT",
        help="of a GPU's memory that weights and caches may take; fewer requests run at once if "
        "those of --max-batch do not fit",
    )
    add(
        "--generation-config",
        choices=("auto", "vllm"),
        default="auto",
        help="defaults of requests: auto, those in the target's generation_config.json; vllm, none",
    )
    add("--model-name", required=True, metavar="NAME", help="what clients call the model")
    add("--grpc-listen", type=listening_address, required=True, metavar="HOST:PORT")
    add("--draft", type=model_uri, metavar="URI", help="checkpoint for the stable slot at start")
    add("--draft-digest", default="", metavar="sha256:HEX", help="digest that --draft must have")
    add("--max-speculation-length", type=whole(0), default=6, metavar="TOKENS")
    add(
        "--no-adaptive-speculation",
        dest="adaptive_speculation",
        action="store_false",
        help="always draft --max-speculation-length tokens",
    )
    add("--max-batch", type=whole(1), default=8, metavar="REQUESTS", help="running at once")
    add("--max-waiting", type=whole(0), default=64, metavar="REQUESTS", help="waiting at most")
    add("--max-context-tokens", type=whole(1), metavar="TOKENS", help="prompt and output")
    add(
        "--allowed-origins",
        type=_strings,
        default=("*",),
        metavar="JSON",
        help="origins that browsers may call from, a JSON list; [] for none",
    )
    return parser


def _strings(text: str) -> tuple[str, ...]:
    with suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, list) and all(isinstance(one, str) for one in found):
            return tuple(found)
    raise argparse.ArgumentTypeError(f"{text!r} is not a JSON list of strings")


def listening_address(text: str) -> Address:
    """HOST:PORT as a command line gives it."""
    host, port = host_port(text)
    return Address(listening_host(host), port)
