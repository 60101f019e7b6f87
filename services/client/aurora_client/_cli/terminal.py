"""Output of commands: coloured on a terminal, plain text in a pipe."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console, RenderableType

# A pipe has no width: wide enough that no table is truncated.
_PIPE_COLUMNS = 200


def console() -> Console:
    """Standard output as a rich console."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else _PIPE_COLUMNS
    return Console(
        highlight=False, emoji=False, markup=False, force_terminal=is_terminal, width=width
    )


def show(renderable: RenderableType) -> None:
    """Prints to standard output; in a pipe without the padding of tables."""
    target = console()
    if target.is_terminal:
        target.print(renderable)
        return
    with target.capture() as captured:
        target.print(renderable)
    sys.stdout.writelines(line.rstrip() + "\n" for line in captured.get().splitlines())


def note(text: str) -> None:
    """Writes a line to standard error, apart from the command's product."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write_text(text: str) -> None:
    """Writes a model's text; on a terminal, control characters are replaced."""
    if sys.stdout.isatty():
        text = "".join(
            character if character.isprintable() or character in "\n\t" else "\ufffd"
            for character in text
        )
    sys.stdout.write(text)
    sys.stdout.flush()
