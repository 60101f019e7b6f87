"""A local deployment's data folder and the addresses recorded in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from aurora_client._cli.run import CommandError

DEFAULT_DATA_FOLDER = Path("out/aurora")

DataFolder = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="AURORA_DATA_DIR",
        help="Data folder of the local deployment; supplies the default addresses.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="Inference server's gRPC address, host:port; default: from --data-dir.",
    ),
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="AURORA_TOKEN", help="Bearer token, if the server requires one."
    ),
]
UsesTls = Annotated[bool, typer.Option("--tls", help="Connect with TLS.")]
OperatorAddress = Annotated[
    str | None,
    typer.Option("--operator", help="Operator's address, host:port; default: from --data-dir."),
]


@dataclass(frozen=True, slots=True)
class Place:
    """The addresses of a deployment on this machine, each `host:port`."""

    operator: str
    http: str
    grpc: str


def read_place(folder: Path) -> Place:
    """Reads `operator.json`. Raises CommandError if no deployment was started in the folder."""
    path = folder / "operator.json"
    try:
        content: object = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CommandError(
            f"no deployment was started in {folder} ({path} is missing): start one with "
            "'aurora up -f manifest.yaml', or name another folder with --data-dir"
        ) from error
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise CommandError(f"{path} is not JSON") from error
    match content:
        case {"address": str(operator), "http": str(http), "grpc": str(grpc)}:
            return Place(operator, http, grpc)
        case _:
            raise CommandError(f"{path} lacks one of the keys address, http, grpc")
