"""What the trainer is told on its command line, checked as a whole."""

from __future__ import annotations

import argparse
import ipaddress
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aurora_common import variable
from aurora_common.admission import admit_problem
from aurora_common.errors import InvalidInputError

# No torch in here: --help and a usage error answer at once.
OBJECTIVES = ("ForwardKL", "LK")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A name, or an address, behind which there may be several replicas."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses are HOST:PORT; without `draft` training begins with random weights.

    `replica_index` 0 trains; every other one computes gradients for it. `pod_ip`: this replica's
    own address among those behind `replicas_at`.
    """

    listen: str
    metrics_listen: str | None
    buffer: str
    target: Path
    models: Path
    state: Path
    draft: Path | None
    min_new_trajectories: int
    min_interval_seconds: float
    objective: str
    learning_rate: float
    batch_size: int
    steps_per_round: int
    holdout_percent: int
    seed: int
    tls: Path | None = None
    # The DNS names of the clients' certificates, where there is `tls`.
    admit: tuple[str, ...] = ()
    health_listen: str | None = None
    replicas_at: tuple[Endpoint, ...] = ()
    replica_index: int = 0
    pod_ip: str | None = None

    @property
    def listen_port(self) -> int:
        """0 where `listen` has none, which whoever binds to it refuses."""
        port = self.listen.rpartition(":")[2]
        return int(port) if port.isascii() and port.isdecimal() else 0


def parse_settings(
    arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Parses command line and environment; raises InvalidInputError with all that is wrong."""
    parsed = _parser().parse_args(arguments)
    problems: list[str] = []
    parsed.admit = tuple(parsed.admit)
    parsed.replicas_at = tuple(_endpoint(text, problems) for text in parsed.replicas_at)
    settings = replace(
        Settings(**vars(parsed)),
        replica_index=_replica_index(environment.get(variable.REPLICA_INDEX, "0"), problems),
        pod_ip=_pod_ip(environment.get(variable.POD_IP), problems),
    )
    allowed = (
        ("--min-new-trajectories", settings.min_new_trajectories, 1, math.inf),
        ("--min-interval-seconds", settings.min_interval_seconds, 0, math.inf),
        ("--learning-rate", settings.learning_rate, 0, 1),
        ("--batch-size", settings.batch_size, 1, 4096),
        ("--steps-per-round", settings.steps_per_round, 1, math.inf),
        ("--holdout-percent", settings.holdout_percent, 0, 50),
        ("--seed", settings.seed, 0, 2**32 - 1),
    )
    problems += [
        f"{flag} is {value}: allowed is {low} to {high}"
        for flag, value, low, high in allowed
        if not low <= value <= high
    ]
    if problem := admit_problem(has_tls=settings.tls is not None, admit=settings.admit):
        problems.append(problem)
    if settings.replica_index > 0 and settings.tls is not None and not settings.replicas_at:
        problems.append(
            f"{variable.REPLICA_INDEX} is {settings.replica_index}: with --tls it needs "
            "--replicas-at, whose host names who may call"
        )
    if problems:
        raise InvalidInputError("; ".join(problems))
    return settings


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aurora_trainer", description="Distils the target into the draft from live traffic."
    )
    add = parser.add_argument
    add("--listen", required=True, metavar="HOST:PORT")
    add("--tls", type=Path, metavar="DIR", help="ca.crt, tls.crt, tls.key: mutual TLS only")
    add(
        "--admit",
        action="append",
        default=[],
        metavar="NAME",
        help="the DNS name of a client's certificate that may call; only with --tls, and as often "
        "as needed",
    )
    add("--health-listen", metavar="HOST:PORT", help="tell the health in plain text here")
    add("--metrics-listen", metavar="HOST:PORT", help="serve Prometheus metrics here")
    add("--buffer", required=True, metavar="HOST:PORT")
    add("--target", required=True, type=Path, metavar="DIR", help="the target's folder")
    add("--models", required=True, type=Path, metavar="DIR", help="where checkpoints go")
    add("--state", required=True, type=Path, metavar="DIR", help="where the state is kept")
    add(
        "--draft",
        type=Path,
        metavar="DIR",
        help="the checkpoint to begin with; without it random weights. A saved state comes first",
    )
    add("--min-new-trajectories", required=True, type=int, metavar="N")
    add("--min-interval-seconds", required=True, type=float, metavar="S")
    add("--objective", required=True, choices=OBJECTIVES)
    add("--learning-rate", required=True, type=float, metavar="X")
    add("--batch-size", required=True, type=int, metavar="N", help="trajectories a step")
    add("--steps-per-round", required=True, type=int, metavar="N")
    add("--holdout-percent", required=True, type=int, metavar="N", help="never trained on")
    add("--seed", type=int, default=0, metavar="N")
    add(
        "--replicas-at",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="where replicas that compute gradients are found, every address of the name one; "
        "may be given several times",
    )
    return parser


def _endpoint(text: str, problems: list[str]) -> Endpoint:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        problems.append(f"--replicas-at is {text!r}: expected HOST:PORT")
        return Endpoint("", 0)
    return Endpoint(host, int(port))


def _replica_index(text: str, problems: list[str]) -> int:
    if not (text.isascii() and text.isdecimal()):
        problems.append(f"{variable.REPLICA_INDEX} is {text!r}: allowed is a number of at least 0")
        return 0
    return int(text)


def _pod_ip(text: str | None, problems: list[str]) -> str | None:
    try:
        return None if text is None else str(ipaddress.ip_address(text))
    except ValueError:
        problems.append(f"{variable.POD_IP} is {text!r}: allowed is an IP address")
        return None
