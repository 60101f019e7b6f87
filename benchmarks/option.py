"""The command line that benchmarks share: how much to measure, and `--quick`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Count(NamedTuple):
    """A whole number that a flag sets; `quick` is its default with --quick."""

    usual: int
    quick: int
    help: str | None = None


def parse(
    description: str | None, counts: Mapping[str, Count], *, files: Mapping[str, str] | None = None
) -> argparse.Namespace:
    """The flags' values by name (`max_tokens` is --max-tokens), and `quick`.

    `files`: flags that take a path, with their help; None if absent.
    With --quick a benchmark runs in seconds: it shows that it works, and its figures mean nothing.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="a run of seconds, whose figures mean nothing"
    )
    for name, count in counts.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=count.help)
    for name, text in (files or {}).items():
        parser.add_argument(f"--{name}", type=Path, metavar="FILE", help=text)
    options = parser.parse_args()
    for name, count in counts.items():
        if getattr(options, name) is None:
            setattr(options, name, count.quick if options.quick else count.usual)
    return options
