"""What commands print on: colours on a terminal, plain text in a pipe."""

from __future__ import annotations

import shutil
import sys

from rich.console import Console, RenderableType

# Wide enough that no table is cut in a pipe, where there is no width.
_PIPE_COLUMNS = 200


def console() -> Console:
    """Standard output, for what is more than a renderable."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else _PIPE_COLUMNS
    return Console(
        highlight=False, emoji=False, markup=False, force_terminal=is_terminal, width=width
    )


def show(renderable: RenderableType) -> None:
    """Prints on standard output; in a pipe without the spaces that fill tables up."""
    target = console()
    if target.is_terminal:
        target.print(renderable)
        return
    with target.capture() as captured:
        target.print(renderable)
    sys.stdout.writelines(line.rstrip() + "\n" for line in captured.get().splitlines())


def note(text: str) -> None:
    """A line beside the product of a command, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def write_text(text: str) -> None:
    """Text from a model; on a terminal its control characters cannot steer the terminal."""
    if sys.stdout.isatty():
        text = "".join(
            character if character.isprintable() or character in "\n\t" else "\ufffd"
            for character in text
        )
    sys.stdout.write(text)
    sys.stdout.flush()
