"""The trainer's command line, parsed and validated as a whole."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurora_common.admission import admit_problem
from aurora_common.errors import InvalidInputError
from aurora_common.flag import add_device_flag, add_version_flag, address, listen_clash
from aurora_common.serving_flags import add_serving_flags
from aurora_common.store.model_store import model_uri

# No torch here, so that --help and usage errors answer at once.
OBJECTIVES = ("ForwardKL", "LK")
OPTIMIZERS = ("AdamW", "Muon")
TARGETS = ("Recorded", "Recompute")
STANDALONE, EAGLE3 = "standalone", "eagle3"
RANK_TIMEOUT_SECONDS = 60.0
MOST_RANKS = 64


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Settings of `train`. Addresses are HOST:PORT; without `draft`, weights start random.

    `target` and `draft` are model URIs; those of pvc:// need `claims`. `ranks`: how many processes
    share each step, this one included; more than one only with `ranks_listen`, where the others
    find it. `local_ranks`: how many of them share this machine's cores. `unroll_…`: how far ahead,
    and with which weight a token later, drafts are trained whose proposals follow from their own
    states.
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
    ranks: int = 1
    ranks_listen: str | None = None
    rank_timeout_seconds: float = RANK_TIMEOUT_SECONDS
    local_ranks: int = 1
    draft_kind: str = STANDALONE
    # Where the target's distributions come from: the trajectories, or the target in this process.
    targets: str = "Recorded"
    optimizer: str = "AdamW"
    unroll_steps: int = 7
    unroll_decay: float = 0.8
    # Of the wall time, spent in steps; see `control.budget`.
    max_share_percent: int = 100
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class RankSettings:
    """Settings of `rank`, which computes for the trainer at an address. Addresses are HOST:PORT.

    `listen`: where it tells its health. `target`: the URI of the target that it holds, if its
    distributions are to be recomputed.
    """

    listen: str
    trainer: str
    metrics_listen: str | None = None
    target: str | None = None
    claims: Path | None = None
    rank_timeout_seconds: float = RANK_TIMEOUT_SECONDS
    local_ranks: int = 1


def parse_settings(arguments: Sequence[str] | None = None) -> TrainSettings | RankSettings:
    """Parses the command line; raises InvalidInputError listing every problem."""
    parsed = vars(_parser().parse_args(arguments))
    trains = parsed.pop("command") == "train"
    problems = _rank_problems(parsed)
    listening = {
        "--listen": parsed["listen"],
        "--health-listen": parsed.get("health_listen"),
        "--metrics-listen": parsed["metrics_listen"],
        "--ranks-listen": parsed.get("ranks_listen"),
    }
    if problem := listen_clash(listening):
        problems.append(problem)
    settings: TrainSettings | RankSettings
    if trains:
        parsed["admit"] = tuple(parsed["admit"])
        settings = TrainSettings(**parsed)
        problems += _training_problems(settings)
    else:
        settings = RankSettings(**parsed)
    if problems:
        raise InvalidInputError("; ".join(problems))
    return settings


def _rank_problems(parsed: Mapping[str, Any]) -> list[str]:
    allowed = (
        ("--ranks", parsed.get("ranks", 1), 1, MOST_RANKS),
        ("--local-ranks", parsed["local_ranks"], 1, MOST_RANKS),
        ("--rank-timeout-seconds", parsed["rank_timeout_seconds"], 1, 3600),
    )
    return _out_of_range(allowed)


def _out_of_range(allowed: Sequence[tuple[str, float, float, float]]) -> list[str]:
    return [
        f"{flag} is {value}: allowed is {low} to {high}"
        for flag, value, low, high in allowed
        if not low <= value <= high
    ]


def _training_problems(settings: TrainSettings) -> list[str]:
    allowed = (
        ("--min-new-trajectories", settings.min_new_trajectories, 1, math.inf),
        ("--min-interval-seconds", settings.min_interval_seconds, 0, math.inf),
        ("--learning-rate", settings.learning_rate, 0, 1),
        ("--batch-size", settings.batch_size, 1, 4096),
        ("--steps-per-round", settings.steps_per_round, 1, math.inf),
        ("--holdout-percent", settings.holdout_percent, 0, 50),
        ("--max-share-percent", settings.max_share_percent, 1, 100),
        ("--seed", settings.seed, 0, 2**32 - 1),
        ("--unroll-steps", settings.unroll_steps, 1, 16),
        ("--unroll-decay", settings.unroll_decay, 0.01, 1),
    )
    problems = _out_of_range(allowed)
    if problem := admit_problem(has_tls=settings.tls is not None, admit=settings.admit):
        problems.append(problem)
    if settings.draft_kind == EAGLE3 and settings.targets == "Recorded":
        problems.append(
            "--draft-kind eagle3 with --targets Recorded: hidden states are not recorded; allowed "
            "is --targets Recompute"
        )
    if (settings.ranks > 1) != (settings.ranks_listen is not None):
        problems.append(
            f"--ranks is {settings.ranks}, --ranks-listen {settings.ranks_listen}: the second is "
            "for more than one rank, which it takes"
        )
    if settings.ranks > 1 and settings.device.startswith("cuda"):
        problems.append(
            f"--ranks {settings.ranks} with --device {settings.device}: ranks compute on CPUs; "
            "allowed is one trainer, or --device cpu"
        )
    return problems


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aurora_trainer", description="Distils the target into the draft from live traffic."
    )
    add_version_flag(parser)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_train(commands.add_parser("train", help="train, and publish checkpoints"))
    _add_rank(commands.add_parser("rank", help="compute shares of a trainer's steps"))
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--listen", type=address, required=True, metavar="HOST:PORT")
    add(
        "--metrics-listen",
        type=address,
        metavar="HOST:PORT",
        help="serve Prometheus metrics here",
    )
    add("--claims", type=Path, metavar="DIR", help="where claims are mounted; for pvc:// URIs")
    add(
        "--rank-timeout-seconds",
        type=float,
        default=RANK_TIMEOUT_SECONDS,
        metavar="S",
        help="how long a rank is waited for, once one is done with its share of a step",
    )
    add(
        "--local-ranks",
        type=int,
        default=1,
        metavar="N",
        help="how many ranks share the cores of this machine",
    )


def _add_rank(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    parser.add_argument(
        "--trainer",
        type=address,
        required=True,
        metavar="HOST:PORT",
        help="the trainer's --ranks-listen",
    )
    parser.add_argument(
        "--target",
        type=model_uri,
        metavar="URI",
        help="the target, if the trainer has --targets Recompute",
    )


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_common(parser)
    add_serving_flags(parser)
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
    add_device_flag(parser)
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
    add(
        "--max-share-percent",
        type=int,
        default=100,
        metavar="N",
        help="how much of the time may be spent training",
    )
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
    add("--ranks", type=int, default=1, metavar="N", help="processes that share each step")
    add(
        "--ranks-listen",
        type=address,
        metavar="HOST:PORT",
        help="where the other ranks find this process; neither encrypted nor authenticated",
    )
