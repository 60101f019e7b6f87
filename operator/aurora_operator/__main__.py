"""`python -m aurora_operator up …`, and `run …`, which `up` starts."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from aurora_common import leash, log
from aurora_common.errors import AuroraError
from aurora_operator.local import LocalOperator, RunOptions
from aurora_operator.runtime.guardian import REFUSED, GuardOptions, guard


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; after an error, which is told on stderr, it is not 0."""
    parsed = _parser().parse_args(arguments)
    log.configure("WARNING" if parsed.command == "up" else "INFO")
    if parsed.command == "up":
        return _up(parsed)
    return _run(parsed)


def _up(parsed: argparse.Namespace) -> int:
    options = GuardOptions(
        manifest=parsed.manifest,
        data_dir=parsed.data_dir,
        http_port=parsed.http_port,
        grpc_port=parsed.grpc_port,
    )
    try:
        return guard(options)
    except AuroraError as error:
        sys.stderr.write(f"aurora: {error}\n")
        return 1


def _run(parsed: argparse.Namespace) -> int:
    leash.follow()
    options = RunOptions(
        manifest=parsed.manifest,
        data_dir=parsed.data_dir,
        http_port=parsed.http_port,
        grpc_port=parsed.grpc_port,
    )
    try:
        return asyncio.run(_operate(options))
    except AuroraError as error:
        sys.stderr.write(f"{error}\n")
        return 1


async def _operate(options: RunOptions) -> int:
    try:
        operator = LocalOperator(options)
    except AuroraError as error:
        sys.stderr.write(f"{error}\n")
        return REFUSED
    await operator.run()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aurora_operator",
        description="Runs an AuroraDeployment as processes of this machine.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run a deployment until SIGTERM or Ctrl-C")
    up.add_argument("-f", "--manifest", type=Path, required=True, metavar="FILE")
    _add_common(up, http_port=8000, grpc_port=9000)
    run = commands.add_parser("run", help="the operator process of a running `up`")
    run.add_argument("--manifest", type=Path, required=True, metavar="FILE")
    _add_common(run, http_port=None, grpc_port=None)
    return parser


def _add_common(
    parser: argparse.ArgumentParser, *, http_port: int | None, grpc_port: int | None
) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR")
    for flag, default, serves in (
        ("--http-port", http_port, "OpenAI-compatible HTTP"),
        ("--grpc-port", grpc_port, "the inference's gRPC"),
    ):
        parser.add_argument(
            flag,
            type=_port,
            default=default,
            required=default is None,
            metavar="PORT",
            help=f"of {serves}, on loopback; 0: any free one",
        )


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; allowed are 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
