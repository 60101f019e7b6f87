"""`aurora status`: the state of a deployment, once or live."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from aurora_client._cli.place import (
    DEFAULT_DATA_FOLDER,
    DataFolder,
    OperatorAddress,
    read_place,
)
from aurora_client._cli.snapshot import Snapshot, look, to_json
from aurora_client._cli.status_view import view
from aurora_client._cli.terminal import console, show
from aurora_client._errors import AuroraClientError

_REFRESH_SECONDS = 1.0


def status(
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
    operator: OperatorAddress = None,
    watch: Annotated[
        bool | None,
        typer.Option(
            "--watch/--once",
            help="Refresh until interrupted, or show once; default: watch on a terminal.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --watch, one line a second.")
    ] = False,
) -> None:
    """Show the components, the drafts, the rollout and its evidence."""
    if watch is None:
        watch = sys.stdout.isatty() and not as_json
    # Unreachable at the start: fail at once rather than wait.
    snapshot = _look(data_dir, operator)
    if not watch:
        _print(snapshot, as_json=as_json, indent=2)
    elif as_json:
        while True:
            _print(snapshot, as_json=True, indent=None)
            time.sleep(_REFRESH_SECONDS)
            snapshot = _look(data_dir, operator)
    else:
        _keep_showing(snapshot, data_dir, operator)


def _look(data_dir: Path, operator: str | None) -> Snapshot:
    # Read each time: a restarted operator has another port.
    if operator is not None:
        return look(operator, None)
    place = read_place(data_dir)
    return look(place.operator, place.grpc)


def _print(snapshot: Snapshot, *, as_json: bool, indent: int | None) -> None:
    if as_json:
        sys.stdout.write(to_json(snapshot, indent=indent) + "\n")
        sys.stdout.flush()
    else:
        show(view(snapshot))


def _keep_showing(snapshot: Snapshot, data_dir: Path, operator: str | None) -> None:
    """Redraws every second; outlasts an operator that is away for a while."""
    with Live(view(snapshot), console=console(), auto_refresh=False) as live:
        while True:
            time.sleep(_REFRESH_SECONDS)
            problem = ""
            try:
                snapshot = _look(data_dir, operator)
            except AuroraClientError as error:
                problem = f"the operator does not answer ({error}); showing its last answer"
            live.update(view(snapshot, problem=problem), refresh=True)
