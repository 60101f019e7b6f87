"""The command line of a gateway."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from aurora_common.flag import add_version_flag, whole
from aurora_common.store.model_store import model_uri
from aurora_inference.settings import (
    Address,
    add_front_flags,
    check_front_flags,
    listening_address,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The parsed command line of `python -m aurora_inference.gateway`.

    `engine`: its URL without a path. `target` None: nothing is recorded, and checkpoints of any
    target are taken. The others as in `aurora_inference.settings`, `gateway.proxy` and
    `gateway.engine_connection`.
    """

    engine: str
    engine_key: Path | None
    pass_authorization: bool
    target: str | None
    http_listen: Address
    control_listen: Address | None
    drain_listen: Address | None
    claims: Path | None
    buffer: Address | None
    put_back: bool
    tls: Path | None
    admit: tuple[str, ...]
    tokens: Path | None
    drain_seconds: int
    sample_percent: int
    capture_percent: int
    opt_out_header: str
    max_inflight: int
    max_body_mib: int


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Parses a command line; on an error, prints it and exits with status 2."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.buffer is not None and parsed.target is None:
        parser.error("--buffer without --target: what is recorded must name its target")
    if parsed.tokens is not None and parsed.pass_authorization:
        parser.error("--tokens with --pass-authorization: one of the two checks a client's token")
    if parsed.drain_listen is not None and not _is_loopback(parsed.drain_listen):
        parser.error(
            f"--drain-listen {parsed.drain_listen}: only a loopback address, for it takes no token"
        )
    check_front_flags(parser, parsed, ("--http-listen", "--control-listen", "--drain-listen"))
    return Settings(**{**vars(parsed), "admit": tuple(parsed.admit)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aurora_inference.gateway",
        description="Stands in front of a vLLM with Aurora's plugin: passes requests through, "
        "records them and switches the draft.",
        allow_abbrev=False,
    )
    add_version_flag(parser)
    add_front_flags(parser)
    add = parser.add_argument
    add("--engine", type=_url, required=True, metavar="URL", help="http://HOST:PORT of the engine")
    add("--engine-key", type=Path, metavar="FILE", help="holds the engine's --api-key")
    add(
        "--pass-authorization",
        action="store_true",
        help="the engine checks the clients' keys; by default it gets --engine-key in their stead",
    )
    add(
        "--drain-listen",
        type=listening_address,
        metavar="HOST:PORT",
        help="loopback: POST /drain here before the engine ends; it answers once nothing is left",
    )
    add(
        "--put-back",
        action="store_true",
        help="leave the engine with the draft that it started with; by default with the stable one",
    )
    add("--target", type=model_uri, metavar="URI", help="the model that the engine serves")
    add(
        "--capture-percent",
        type=whole(0, 100),
        default=10,
        metavar="PERCENT",
        help="of recorded requests: with the target's 64 most probable tokens at each position",
    )
    add("--max-inflight", type=whole(1), default=1024, metavar="REQUESTS", help="at once")
    add("--max-body-mib", type=whole(1, 512), default=64, metavar="MIB", help="of a request")
    return parser


def _is_loopback(address: Address) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        whole_url = parts.scheme in ("http", "https") and bool(parts.hostname)
        bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
        # Raises ValueError if it is no number.
        parts.port  # noqa: B018
    except ValueError:
        whole_url = bare = False
    if not (whole_url and bare):
        raise argparse.ArgumentTypeError(f"{text!r} is not http://HOST:PORT, without a path")
    return f"{parts.scheme}://{parts.netloc}"
