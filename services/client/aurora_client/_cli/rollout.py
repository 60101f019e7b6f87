"""`aurora rollout`: the rollouts that were, and manual commands to the one in progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from aurora_client._cli.explanation import explanation
from aurora_client._cli.history_view import rollouts_table
from aurora_client._cli.past import Output, evidence_of, found, rollouts, write
from aurora_client._cli.place import (
    DEFAULT_DATA_FOLDER,
    DataFolder,
    OperatorAddress,
    read_place,
)
from aurora_client._cli.terminal import show
from aurora_client._deployment import Deployment, RolloutState
from aurora_client._operator_client import OperatorClient, RolloutCommands
from aurora_client._policy import Timeout

app = typer.Typer(help="Explain rollouts, and steer the one in progress.")

RolloutId = Annotated[
    str, typer.Argument(metavar="[ROLLOUT]", help="Its ID; default: the one in progress.")
]

AnyRollout = Annotated[
    str,
    typer.Argument(
        metavar="[ROLLOUT|CHECKPOINT|DIGEST]",
        help="Its ID, its checkpoint, or the first digits of its digest; default: the newest.",
    ),
]
OutputForm = Annotated[Output | None, typer.Option("--output", "-o", help="Print it in this form.")]


@app.command()
def history(
    output: OutputForm = None,
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
) -> None:
    """List the rollouts, newest first: verdicts, reasons, effects."""
    show_history(_deployment(operator, data_dir), output)


@app.command()
def explain(
    rollout: AnyRollout = "",
    output: OutputForm = None,
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
) -> None:
    """Say why a rollout ended, or what it waits for: each clause of the rule."""
    show_explanation(_deployment(operator, data_dir), rollout, output)


def show_history(deployment: Deployment, output: Output | None) -> None:
    """Prints the rollouts of a deployment."""
    listed = rollouts(deployment.status)
    if output is not None:
        write(listed, output)
    elif listed:
        show(rollouts_table(listed))
    else:
        show("no rollout yet")


def show_explanation(deployment: Deployment, wanted: str, output: Output | None) -> None:
    """Prints one rollout, clause by clause; raises CommandError if there is no such one."""
    past = found(deployment.status, wanted)
    if output is not None:
        write(past, output)
        return
    rollout = evidence_of(deployment.status, past)
    show(explanation(past, rollout, is_paused=deployment.is_paused))


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


def _deployment(operator: str | None, data_dir: Path) -> Deployment:
    address = operator or read_place(data_dir).operator
    with OperatorClient(address, timeout=Timeout(call_seconds=10)) as client:
        return client.status()


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
