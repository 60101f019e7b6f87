"""What one inference process serves and where, from its command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aurora_common.admission import admit_problem
from aurora_common.store.model_store import model_uri

Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen or whom to call."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The parsed command line of `python -m aurora_inference`.

    `target` and `draft` are model URIs; those of pvc://, like a staged draft's, need `claims`.
    `draft_digest` is what `draft` must have; empty: whatever its manifest says. `buffer` None: no
    trajectory is kept. `control_listen` None: whoever reaches the gRPC front may also change
    drafts. `tls` is for the control port and the buffer; `admit` are the clients of the former.
    `max_context_tokens` None: as many as the target was made for.
    """

    target: str
    dtype: Dtype
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


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Parses a command line; prints what is wrong and exits with status 2 where it is wrong."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.draft_digest and parsed.draft is None:
        parser.error("--draft-digest without --draft: name the draft too")
    if parsed.tls is not None and parsed.control_listen is None:
        parser.error("--tls without --control-listen: name the port that it secures too")
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
    add("--model-name", required=True, metavar="NAME", help="what clients call the model")
    add("--http-listen", type=_address, required=True, metavar="HOST:PORT")
    add("--grpc-listen", type=_address, required=True, metavar="HOST:PORT")
    add(
        "--draft", type=model_uri, metavar="URI", help="checkpoint to begin with in the stable slot"
    )
    add("--draft-digest", default="", metavar="sha256:HEX", help="what --draft must have")
    add("--claims", type=Path, metavar="DIR", help="where claims are mounted; for pvc:// URIs")
    add("--buffer", type=_address, metavar="HOST:PORT", help="where trajectories go")
    add(
        "--control-listen",
        type=_address,
        metavar="HOST:PORT",
        help="drafts and traffic are changed here, and no longer on --grpc-listen",
    )
    add(
        "--tls",
        type=Path,
        metavar="DIR",
        help="ca.crt, tls.crt, tls.key: mutual TLS on --control-listen and with the buffer",
    )
    add(
        "--admit",
        action="append",
        default=[],
        metavar="NAME",
        help="the DNS name of a client's certificate that may call --control-listen; only with "
        "--tls, and as often as needed",
    )
    add(
        "--tokens",
        type=Path,
        metavar="DIR",
        help="clients must show a bearer token, the content of one of these files",
    )
    add("--drain-seconds", type=_whole(0), default=6, metavar="S", help="for requests in flight")
    add("--max-speculation-length", type=_whole(0), default=6, metavar="TOKENS")
    add(
        "--no-adaptive-speculation",
        dest="adaptive_speculation",
        action="store_false",
        help="always draft the most allowed, whether it pays or not",
    )
    add("--max-batch", type=_whole(1), default=8, metavar="REQUESTS", help="run at once")
    add("--max-waiting", type=_whole(0), default=64, metavar="REQUESTS", help="wait at most")
    add("--max-context-tokens", type=_whole(1), metavar="TOKENS", help="prompt and output together")
    add(
        "--sample-percent",
        type=_whole(0, 100),
        default=100,
        metavar="PERCENT",
        help="of the requests whose trajectory is kept",
    )
    add(
        "--opt-out-header",
        type=str.lower,
        default="x-aurora-no-train",
        metavar="NAME",
        help="HTTP header by which a request's trajectory is not kept",
    )
    return parser


def _address(text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


class _whole:  # noqa: N801 - argparse prints the type's name in its messages
    """A whole number within bounds, both included."""

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
