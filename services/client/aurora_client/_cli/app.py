"""The `aurora` command: its subcommands, and how every failure ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_group

from aurora_client._cli import bench, drafts, generate, launch, rollout, status
from aurora_client._cli.failure import CommandError
from aurora_client._cli.place import DEFAULT_DATA_FOLDER, DataFolder
from aurora_client._cli.terminal import note
from aurora_client._errors import AuroraClientError

app = typer.Typer(
    help="Speculative decoding whose draft keeps learning from live traffic.",
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.command()
def up(
    manifest: Annotated[
        Path, typer.Option("--file", "-f", help="AuroraDeployment manifest (YAML).")
    ],
    data_dir: DataFolder = DEFAULT_DATA_FOLDER,
    http_port: Annotated[int, typer.Option(help="Port of the OpenAI-compatible server.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port of the gRPC server.")] = 9000,
) -> None:
    """Run a deployment on this machine until it is interrupted."""
    arguments = ["up", "-f", str(manifest), "--data-dir", str(data_dir)]
    arguments += ["--http-port", str(http_port), "--grpc-port", str(grpc_port)]
    launch.execute(launch.OPERATOR, arguments)


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def demo(context: typer.Context) -> None:
    """Show the whole loop on this machine; `aurora demo --help` lists its options."""
    launch.execute(launch.DEMO, context.args)


app.command()(status.status)
app.command()(generate.generate)
app.add_typer(drafts.app, name="drafts")
app.add_typer(rollout.app, name="rollout")
app.command()(bench.bench)


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; the exit code: 0, 1 for a failure, 130 when interrupted."""
    try:
        code = app(arguments or ["--help"], prog_name="aurora", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (CommandError, AuroraClientError) as error:
        note(f"aurora: {error}")
    except typer.TyperException as error:
        note(f"aurora: {error.format_message()} (see {_help_of(arguments)})")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has left; Python's own flush at exit would fail on the pipe once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UnicodeError:
        note("aurora: the input is not UTF-8 text")
    except OSError as error:
        note(f"aurora: {error.filename or 'input or output'}: {error.strerror}")
    return 1


def _help_of(arguments: Sequence[str]) -> str:
    """The command line whose help covers a wrong one."""
    name = arguments[0] if arguments else ""
    return f"aurora {name} --help" if name in get_group(app).commands else "aurora --help"
