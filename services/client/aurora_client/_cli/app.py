"""The `aurora` command and its subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aurora_client._cli import bench, drafts, generate, launch, rollout, status
from aurora_client._cli.place import DEFAULT_DATA_FOLDER, DataFolder
from aurora_client._cli.version import Version

app = typer.Typer(
    help="Speculative decoding whose draft keeps learning from live traffic.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback()
def aurora(_: Version = False) -> None:
    """Speculative decoding whose draft keeps learning from live traffic."""


@app.command()
def up(
    manifest: Annotated[
        Path,
        typer.Option(
            "--file", "-f", help="AuroraDeployment manifest, YAML or JSON; - reads standard input."
        ),
    ],
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
    http_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the OpenAI-compatible server; 0: any.")
    ] = 8000,
    grpc_port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the gRPC server; 0: any.")
    ] = 9000,
    notify_url_file: Annotated[
        Path | None,
        typer.Option(help="File with the URL of a webhook that gets each verdict as a CloudEvent."),
    ] = None,
) -> None:
    """Run a deployment on this machine until interrupted."""
    arguments = ["up", "-f", str(manifest), "--data-dir", str(data_dir)]
    arguments += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    if notify_url_file is not None:
        arguments += ["--notify-url-file", str(notify_url_file)]
    launch.execute(launch.OPERATOR, arguments)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Demonstrate the whole loop on this machine; `aurora demo --help` lists its options."""
    launch.execute(launch.DEMO, context.args)


app.command()(status.status)
app.command()(generate.generate)
app.add_typer(drafts.app, name="drafts")
app.add_typer(rollout.app, name="rollout")
app.command()(bench.bench)
