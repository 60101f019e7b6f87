"""Values of command-line flags; every error names the value and what is allowed."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping

from aurora_common.version import VERSION

MOST_PORT = 65_535
# An address that listens on all interfaces.
_WILDCARDS = frozenset({"0.0.0.0", "::"})
_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9][0-9]{0,2}))?")


def add_version_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --version, which prints Aurora's version and exits."""
    parser.add_argument("--version", action="version", version=f"aurora {VERSION}")


def port(text: str) -> int:
    """A TCP port; 0 stands for any free one."""
    if not _is_port(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; allowed are 0 to {MOST_PORT}")
    return int(text)


def host_port(text: str) -> tuple[str, int]:
    """Splits HOST:PORT; an IPv6 address stands in brackets."""
    host, _, number = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or not _is_port(number) or (":" in bare and bare == host):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not HOST:PORT with a port of 0 to {MOST_PORT}; an IPv6 address needs "
            "brackets"
        )
    return bare, int(number)


def address(text: str) -> str:
    """HOST:PORT as it was given."""
    host_port(text)
    return text


def device(text: str) -> str:
    """auto, cpu, cuda or cuda:N; which there are, `aurora_model.device` knows."""
    if not _DEVICE.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not auto, cpu, cuda or cuda:N")
    return text


def add_device_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --device, auto by default."""
    parser.add_argument(
        "--device",
        type=device,
        default="auto",
        metavar="auto|cpu|cuda[:N]",
        help="auto: a GPU if there is a usable one; cuda: also a ROCm build's GPU",
    )


def listen_clash(flags: Mapping[str, str | None]) -> str | None:
    """Which two of these flags want one port (HOST:PORT each); None if no two do."""
    taken: list[tuple[str, str, int]] = []
    for flag, text in flags.items():
        if text is None:
            continue
        host, number = host_port(text)
        for other, other_host, other_number in taken:
            same_host = host == other_host or not _WILDCARDS.isdisjoint((host, other_host))
            if number == other_number != 0 and same_host:
                return f"{other} and {flag} are both on port {number}; each needs its own"
        taken.append((flag, host, number))
    return None


class whole:  # noqa: N801 - argparse prints the type's name in its messages
    """A whole number within inclusive bounds."""

    def __init__(self, least: int, most: int | None = None) -> None:
        self._least = least
        self._most = most

    def __call__(self, text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < self._least or number > (self._most or math.inf):
            most = "" if self._most is None else f" to {self._most}"
            allowed = f"{self._least}{most}" if most else f"at least {self._least}"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not allowed; a whole number of {allowed} is"
            )
        return number


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= MOST_PORT
