"""Runs a command line; a failure is one line on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer
from typer.main import get_group

from aurora_client._cli.terminal import note
from aurora_client._errors import AuroraClientError


class CommandError(Exception):
    """Why a command cannot do what it should and what would help; printed as is, exit code 1."""


def run(app: typer.Typer, arguments: Sequence[str], *, name: str) -> int:
    """Runs a command line of `app`; returns 0, 1 on failure, 130 if interrupted."""
    try:
        code = app(arguments or ["--help"], prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (CommandError, AuroraClientError) as error:
        note(f"{name}: {error}")
    except typer.TyperException as error:
        note(f"{name}: {_complaint(error)} (see {_help_of(app, arguments, name)})")
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader is gone; Python's own flush at exit would fail on the pipe again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UnicodeError:
        note(f"{name}: the input is not UTF-8 text")
    except OSError as error:
        note(f"{name}: {error.filename or 'input or output'}: {error.strerror}")
    return 1


def _complaint(error: typer.TyperException) -> str:
    """typer's message, which says what is allowed, and the value."""
    text, cause = error.format_message(), error.__cause__
    # Of pydantic, which need not be installed.
    details = getattr(cause, "errors", None)
    value = repr(details()[0]["input"]) if callable(details) else ""
    return text if value in text else f"{text}, but it is {value}"


def _help_of(app: typer.Typer, arguments: Sequence[str], name: str) -> str:
    """The help command that covers `arguments`."""
    command = arguments[0] if arguments else ""
    return f"{name} {command} --help" if command in get_group(app).commands else f"{name} --help"
