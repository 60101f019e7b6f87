"""`aurora drafts`: the checkpoints in the model store."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from aurora_client._cli import launch
from aurora_client._cli.place import (
    DEFAULT_DATA_FOLDER,
    DataFolder,
    OperatorAddress,
    read_place,
)
from aurora_client._cli.shape import percent, plain_table, short_digest
from aurora_client._cli.terminal import show
from aurora_client._deployment import PublishedDraft
from aurora_client._operator_client import OperatorClient
from aurora_client._policy import Timeout

app = typer.Typer(help="List the draft checkpoints, newest first, import or make one.")


class Kind(StrEnum):
    """Draft kinds, as in a manifest."""

    STANDALONE = "Standalone"
    EAGLE3 = "Eagle3"


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def drafts(
    context: typer.Context,
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
    as_json: Json = False,
) -> None:
    """List the draft checkpoints, newest first."""
    if context.invoked_subcommand is None:
        _list(operator, data_dir, as_json=as_json)


@app.command("list")
def list_drafts(
    operator: OperatorAddress = None,
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
    as_json: Json = False,
) -> None:
    """List the draft checkpoints, newest first."""
    _list(operator, data_dir, as_json=as_json)


@app.command("import")
def import_draft(
    source: Annotated[str, typer.Argument(help="A Hugging Face folder, or its file:// URI.")],
    target: Annotated[str, typer.Option(help="Folder or file:// URI of the target.")],
    out: Annotated[Path, typer.Option(help="Folder to put the checkpoint into.")],
) -> None:
    """Make a draft checkpoint for a target out of a model with the same tokenizer."""
    launch.execute(launch.MODEL, ["import", source, "--target", target, "--out", str(out)])


@app.command("new")
def new_draft(
    target: Annotated[str, typer.Option(help="Folder or file:// URI of the target.")],
    out: Annotated[Path, typer.Option(help="Folder to put the checkpoint into.")],
    kind: Annotated[Kind, typer.Option(case_sensitive=False)] = Kind.STANDALONE,
    seed: Annotated[int, typer.Option(min=0, help="Determines the weights.")] = 0,
) -> None:
    """Make a draft checkpoint with random weights, for an engine that needs one to begin with."""
    options = ["--target", target, "--out", str(out), "--seed", str(seed)]
    launch.execute(launch.MODEL, ["new", "--kind", kind.value.lower(), *options])


def _list(operator: str | None, data_dir: Path, *, as_json: bool) -> None:
    address = operator or read_place(data_dir).operator
    with OperatorClient(address, timeout=Timeout(call_seconds=10)) as client:
        found = client.drafts()
    if as_json:
        sys.stdout.write(json.dumps([asdict(draft) for draft in found], indent=2) + "\n")
    elif found:
        show(_table(found))
    else:
        show("no draft checkpoint has been published yet")


def _table(found: Sequence[PublishedDraft]) -> Table:
    table = plain_table("draft", "role", "outcome", "published", "digest", "parent")
    table.add_column("acceptance", justify="right")
    styles = {"stable": "green", "candidate": "cyan"}
    for draft in found:
        published_at = datetime.fromtimestamp(draft.published_at_ms / 1e3)
        table.add_row(
            draft.name,
            draft.role or "–",
            draft.outcome or "–",
            f"{published_at:%Y-%m-%d %H:%M:%S}" if draft.published_at_ms else "–",
            short_digest(draft.digest),
            short_digest(draft.parent_digest),
            percent(draft.acceptance) if draft.acceptance else "–",
            style=styles.get(draft.role),
        )
    return table
