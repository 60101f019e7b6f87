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
    if parsed.tls is not None and parsed.control_listen is None:
        parser.error("--tls without --control-listen: give the port that it secures too")
    if problem := admit_problem(has_tls=parsed.tls is not None, admit=parsed.admit):
        parser.error(problem)
    return Settings(**{**vars(parsed), "admit": tuple(parsed.admit)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aurora_inference",
        description="Serves one target model with two draft slots over gRPC and OpenAI's HTTP.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--target",
        type=model_uri,
        required=True,
        metavar="URI",
        help="model in Hugging Face layout",
    )
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the target")
    add(
        "--generation-config",
        choices=("auto", "vllm"),
        default="auto",
        help="defaults of requests: auto, those in the target's generation_config.json; vllm, none",
    )
    add("--model-name", required=True, metavar="NAME", help="what clients call the model")
    add("--http-listen", type=_address, required=True, metavar="HOST:PORT")
    add("--grpc-listen", type=_address, required=True, metavar="HOST:PORT")
    add("--draft", type=model_uri, metavar="URI", help="checkpoint for the stable slot at start")
    add("--draft-digest", default="", metavar="sha256:HEX", help="digest that --draft must have")
    add("--claims", type=Path, metavar="DIR", help="where claims are mounted; for pvc:// URIs")
    add("--buffer", type=_address, metavar="HOST:PORT", help="trajectory buffer")
    add(
        "--control-listen",
        type=_address,
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
    add("--drain-seconds", type=_whole(0), default=6, metavar="S", help="for requests in flight")
    add("--max-speculation-length", type=_whole(0), default=6, metavar="TOKENS")
    add(
        "--no-adaptive-speculation",
        dest="adaptive_speculation",
        action="store_false",
        help="always draft --max-speculation-length tokens",
    )
    add("--max-batch", type=_whole(1), default=8, metavar="REQUESTS", help="running at once")
    add("--max-waiting", type=_whole(0), default=64, metavar="REQUESTS", help="waiting at most")
    add("--max-context-tokens", type=_whole(1), metavar="TOKENS", help="prompt and output")
    add(
        "--sample-percent",
        type=_whole(0, 100),
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


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return Address(listening_host(host), int(port))


class _whole:  # noqa: N801 - argparse prints the type's name in its messages
    """A whole number within inclusive bounds."""

    def __init__(self, least: int, most: int | None = None) -> None:
        self._least = least
        self._most = most

    def __call__(self, text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if number < self._least or (self._most is not None and number > self._most):
            allowed = f"at least {self._least}"
            if self._most is not None:
                allowed = f"{self._least} to {self._most}"
            raise argparse.ArgumentTypeError(f"{number} is not allowed; {allowed} is")
        return number
