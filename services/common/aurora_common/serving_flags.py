"""The command-line flags that every gRPC server of ours has."""

from __future__ import annotations

import argparse
from pathlib import Path

from aurora_common.flag import address


def add_serving_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --tls, --admit and --health-listen; `admission.admit_problem` checks the first two."""
    parser.add_argument(
        "--tls", type=Path, metavar="DIR", help="ca.crt, tls.crt, tls.key: mutual TLS only"
    )
    parser.add_argument(
        "--admit",
        action="append",
        default=[],
        metavar="NAME",
        help="the DNS name of a client's certificate that may call; only with --tls, and as often "
        "as needed",
    )
    parser.add_argument(
        "--health-listen",
        type=address,
        metavar="HOST:PORT",
        help="tell the health in plain text here",
    )
