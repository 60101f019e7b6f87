"""What the trainer is told on its command line, checked as a whole."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aurora_common.errors import InvalidInputError

# No torch in here: --help and a usage error answer at once.
OBJECTIVES = ("ForwardKL", "LK")


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses are HOST:PORT; without `draft` training begins with random weights."""

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
    health_listen: str | None = None


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Parses the command line; raises InvalidInputError with every value that is not allowed."""
    settings = Settings(**vars(_parser().parse_args(arguments)))
    allowed = (
        ("--min-new-trajectories", settings.min_new_trajectories, 1, math.inf),
        ("--min-interval-seconds", settings.min_interval_seconds, 0, math.inf),
        ("--learning-rate", settings.learning_rate, 0, 1),
        ("--batch-size", settings.batch_size, 1, 4096),
        ("--steps-per-round", settings.steps_per_round, 1, math.inf),
        ("--holdout-percent", settings.holdout_percent, 0, 50),
        ("--seed", settings.seed, 0, 2**32 - 1),
    )
    problems = [
        f"{flag} is {value}: allowed is {low} to {high}"
        for flag, value, low, high in allowed
        if not low <= value <= high
    ]
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
    return parser
