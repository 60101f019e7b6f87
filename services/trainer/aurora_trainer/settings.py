"""The trainer's command line, parsed and validated as a whole."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aurora_common.admission import admit_problem
from aurora_common.errors import InvalidInputError
from aurora_common.flag import add_version_flag, address, listen_clash
from aurora_common.serving_flags import add_serving_flags
from aurora_common.store.model_store import model_uri

# No torch here, so that --help and usage errors answer at once.
OBJECTIVES = ("ForwardKL", "LK")
OPTIMIZERS = ("AdamW", "Muon")
TARGETS = ("Recorded", "Recompute")
STANDALONE, EAGLE3 = "standalone", "eagle3"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host name or address, which several replicas may share."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of `train`. Addresses are HOST:PORT; without `draft`, weights start random.

    `target` and `draft` are model URIs; those of pvc:// need `claims`. `replicas_name`: the DNS
    name in the replicas' certificates; only with `tls`. `unroll_…`: how far ahead, and with which
    weight a token later, drafts are trained whose proposals follow from their own states.
    """

    listen: str
    metrics_listen: str | None
    buffer: str
    target: str
    models: Path
    state: Path
    draft: str | None
    min_new_trajectories: int
    min_interval_seconds: float
    objective: str
    learning_rate: float
    batch_size: int
    steps_per_round: int
    holdout_percent: int
    seed: int
    claims: Path | None = None
    tls: Path | None = None
    # The DNS names in the certificates of admitted clients; only with `tls`.
    admit: tuple[str, ...] = ()
    health_listen: str | None = None
    replicas_at: tuple[Endpoint, ...] = ()
    replicas_name: str | None = None
    draft_kind: str = STANDALONE
    # Where the target's distributions come from: the trajectories, or the target in this process.
    targets: str = "Recorded"
    optimizer: str = "AdamW"
    unroll_steps: int = 7
    unroll_decay: float = 0.8


@dataclass(frozen=True, slots=True)
class GradientSettings:
    """Settings of `gradient`, a replica that computes for a trainer. Addresses are HOST:PORT."""

    listen: str
    tls: Path | None = None
    # The DNS names in the certificates of admitted clients; only with `tls`.
    admit: tuple[str, ...] = ()
    health_listen: str | None = None
    metrics_listen: str | None = None


def parse_settings(arguments: Sequence[str] | None = None) -> TrainSettings | GradientSettings:
    """Parses the command line; raises InvalidInputError listing every problem."""
    parsed = vars(_parser().parse_args(arguments))
    problems: list[str] = []
    trains = parsed.pop("command") == "train"
    parsed["admit"] = tuple(parsed["admit"])
    if problem := admit_problem(has_tls=parsed["tls"] is not None, admit=parsed["admit"]):
        problems.append(problem)
    listening = {
        "--listen": parsed["listen"],
        "--health-listen": parsed["health_listen"],
        "--metrics-listen": parsed["metrics_listen"],
    }
    if problem := listen_clash(listening):
        problems.append(problem)
    settings: TrainSettings | GradientSettings
    if trains:
        places = tuple(_endpoint(text, problems) for text in parsed.pop("replicas_at"))
        settings = TrainSettings(**parsed, replicas_at=places)
        problems += _training_problems(settings)
    else:
        settings = GradientSettings(**parsed)
    if problems:
        raise InvalidInputError("; ".join(problems))
    return settings


def _training_problems(settings: TrainSettings) -> list[str]:
    allowed = (
        ("--min-new-trajectories", settings.min_new_trajectories, 1, math.inf),
        ("--min-interval-seconds", settings.min_interval_seconds, 0, math.inf),
        ("--learning-rate", settings.learning_rate, 0, 1),
        ("--batch-size", settings.batch_size, 1, 4096),
        ("--steps-per-round", settings.steps_per_round, 1, math.inf),
        ("--holdout-percent", settings.holdout_percent, 0, 50),
        ("--seed", settings.seed, 0, 2**32 - 1),
        ("--unroll-steps", settings.unroll_steps, 1, 16),
        ("--unroll-decay", settings.unroll_decay, 0.01, 1),
    )
    problems = [
        f"{flag} is {value}: allowed is {low} to {high}"
        for flag, value, low, high in allowed
        if not low <= value <= high
    ]
    if settings.draft_kind == EAGLE3 and settings.targets == "Recorded":
        problems.append(
            "--draft-kind eagle3 with --targets Recorded: hidden states are not recorded; allowed "
            "is --targets Recompute"
        )
    if settings.targets == "Recompute" and settings.replicas_at:
        problems.append(
            "--replicas-at with --targets Recompute: replicas do not hold the target; allowed is "
            "one trainer"
        )
    if settings.tls is None and settings.replicas_name is not None:
        problems.append(
            "--replicas-name without --tls: there are no certificates to check it against"
        )
    if settings.tls is not None and settings.replicas_at and not settings.replicas_name:
        problems.append("--replicas-at with --tls: --replicas-name is required")
    return problems


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aurora_trainer", description="Distils the target into the draft from live traffic."
    )
    add_version_flag(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train, and publish checkpoints"))
    _add_serving(commands.add_parser("gradient", help="compute gradients for a trainer"))
    return parser


def _add_serving(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", type=address, required=True, metavar="HOST:PORT")
    add_serving_flags(parser)
    parser.add_argument(
        "--metrics-listen",
        type=address,
        metavar="HOST:PORT",
        help="serve Prometheus metrics here",
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_serving(parser)
    add = parser.add_argument
    add("--buffer", type=address, required=True, metavar="HOST:PORT")
    add("--target", required=True, type=model_uri, metavar="URI", help="the target, or its folder")
    add("--models", required=True, type=Path, metavar="DIR", help="where checkpoints are published")
    add("--state", required=True, type=Path, metavar="DIR", help="where the state is kept")
    add(
        "--draft",
        type=model_uri,
        metavar="URI",
        help="the initial checkpoint, random weights if absent; a saved state takes precedence",
    )
    add("--claims", type=Path, metavar="DIR", help="where claims are mounted; for pvc:// URIs")
    add("--min-new-trajectories", required=True, type=int, metavar="N")
    add("--min-interval-seconds", required=True, type=float, metavar="S")
    add("--objective", required=True, choices=OBJECTIVES)
    add(
        "--optimizer",
        choices=OPTIMIZERS,
        default="AdamW",
        help="Muon is for the matrices of the draft's layers; the rest stays with AdamW",
    )
    add("--learning-rate", required=True, type=float, metavar="X")
    add("--batch-size", required=True, type=int, metavar="N", help="trajectories a step")
    add("--steps-per-round", required=True, type=int, metavar="N")
    add("--holdout-percent", required=True, type=int, metavar="N", help="never trained on")
    add("--seed", type=int, default=0, metavar="N")
    add(
        "--draft-kind",
        choices=(EAGLE3, STANDALONE),
        default=STANDALONE,
        help="of the draft that training starts from",
    )
    add(
        "--targets",
        choices=TARGETS,
        default="Recorded",
        help="what is learned from: recorded distributions, or those that the target, which this "
        "process then holds, computes for recorded tokens",
    )
    add("--unroll-steps", type=int, default=7, metavar="N", help="tokens ahead; for eagle3")
    add("--unroll-decay", type=float, default=0.8, metavar="X", help="weight of a token later")
    add(
        "--replicas-at",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="gradient replicas, one at each address that the name resolves to; may be repeated",
    )
    add(
        "--replicas-name",
        metavar="NAME",
        help="the DNS name in the certificates of those replicas; only with --tls",
    )


def _endpoint(text: str, problems: list[str]) -> Endpoint:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        problems.append(f"--replicas-at is {text!r}: expected HOST:PORT")
        return Endpoint("", 0)
    return Endpoint(host, int(port))
