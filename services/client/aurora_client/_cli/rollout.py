"""`aurora rollout`: manual commands to a rollout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from aurora_client._cli.place import (
    DEFAULT_DATA_FOLDER,
    DataFolder,
    OperatorAddress,
    read_place,
)
from aurora_client._cli.terminal import show
from aurora_client._deployment import RolloutState
from aurora_client._operator_client import OperatorClient, RolloutCommands
from aurora_client._policy import Timeout

app = typer.Typer(help="Steer the rollout in progress.")

RolloutId = Annotated[
    str, typer.Argument(metavar="[ROLLOUT]", help="Its ID; default: the one in progress.")
]


@app.command()
def pause(
    rollout: RolloutId = "",
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
) -> None:
    """Hold the candidate's share of the traffic and suspend judgement."""
    _command(operator, data_dir, "paused", lambda commands: commands.pause(rollout))


@app.command()
def resume(
    rollout: RolloutId = "",
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
) -> None:
    """Resume a paused rollout."""
    _command(operator, data_dir, "resumed", lambda commands: commands.resume(rollout))


@app.command()
def abort(
    rollout: RolloutId = "",
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
) -> None:
    """Roll back to the stable draft."""
    _command(operator, data_dir, "aborted", lambda commands: commands.abort(rollout))


@app.command()
def promote(
    rollout: RolloutId = "",
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
) -> None:
    """Promote the candidate without waiting for the evidence."""
    _command(operator, data_dir, "promoted by hand", lambda commands: commands.promote(rollout))


def _command(
    operator: str | None,
    data_dir: Path,
    done: str,
    act: Callable[[RolloutCommands], RolloutState],
) -> None:
    address = operator or read_place(data_dir).operator
    with OperatorClient(address, timeout=Timeout(call_seconds=10)) as client:
        after = act(client.rollout)
    # What was paused may have ended before it is resumed.
    where = f"{after.rollout_id} is {after.state}" if after.rollout_id else "no rollout in progress"
    show(f"{done}: {where}")
