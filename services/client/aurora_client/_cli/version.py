"""The --version option of a command line."""

from __future__ import annotations

from typing import Annotated

import typer

from aurora_client._cli.terminal import show
from aurora_common.version import VERSION


def _print(wanted: bool) -> None:
    if wanted:
        show(f"aurora {VERSION}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option("--version", callback=_print, is_eager=True, help="Print the version and exit."),
]
