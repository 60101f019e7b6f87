"""The command lines of `train` and `rank`."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurora_common.errors import InvalidInputError
from aurora_trainer.settings import RankSettings, TrainSettings, parse_settings

TRAIN = (
    *("train", "--listen", "0.0.0.0:50053", "--buffer", "buffer:50052"),
    *("--target", "t", "--models", "m", "--state", "s", "--objective", "LK"),
    *("--min-new-trajectories", "1", "--min-interval-seconds", "0", "--learning-rate", "1e-4"),
    *("--batch-size", "32", "--steps-per-round", "50", "--holdout-percent", "5"),
)
RANK = ("rank", "--listen", "0.0.0.0:9002", "--trainer", "chat-trainer.serving.svc:29400")
TLS = ("--tls", "folder", "--admit", "operator")
MEETING = ("--ranks-listen", "[::]:29400")


def test_it_trains_alone_by_default():
    settings = parse_settings(TRAIN)
    assert isinstance(settings, TrainSettings)
    assert (settings.ranks, settings.ranks_listen) == (1, None)


def test_other_ranks_find_it_at_an_address():
    settings = parse_settings([*TRAIN, *TLS, "--ranks", "2", *MEETING])
    assert (settings.ranks, settings.ranks_listen) == (2, "[::]:29400")


@pytest.mark.parametrize("percent", [0, 101])
def test_the_share_of_the_time_is_a_percentage(percent):
    with pytest.raises(
        InvalidInputError, match=f"--max-share-percent is {percent}: allowed is 1 to 100"
    ):
        parse_settings((*TRAIN, "--max-share-percent", str(percent)))


def test_two_listeners_on_one_port():
    with pytest.raises(InvalidInputError, match="--listen and --metrics-listen are both on port"):
        parse_settings([*TRAIN, "--metrics-listen", "127.0.0.1:50053"])


def test_a_head_learns_beside_its_target():
    settings = parse_settings([*TRAIN, "--draft-kind", "eagle3", "--targets", "Recompute"])
    assert (settings.unroll_steps, settings.unroll_decay) == (7, 0.8)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--draft-kind", "eagle3"], "allowed is --targets Recompute"),
        (["--ranks", "2"], "--ranks is 2, --ranks-listen None"),
        ([*MEETING], r"--ranks is 1, --ranks-listen \[::\]:29400"),
        ([*MEETING, "--ranks", "65"], "--ranks is 65: allowed is 1 to 64"),
        (["--local-ranks", "0"], "--local-ranks is 0: allowed is 1 to 64"),
        (["--rank-timeout-seconds", "0.5"], "allowed is 1 to 3600"),
        (["--unroll-steps", "17"], "--unroll-steps is 17: allowed is 1 to 16"),
        (["--unroll-decay", "0"], "--unroll-decay is 0.0: allowed is 0.01 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, problem):
    with pytest.raises(InvalidInputError, match=problem):
        parse_settings([*TRAIN, *flags])


def test_a_rank_needs_its_trainer():
    assert parse_settings(RANK) == RankSettings("0.0.0.0:9002", "chat-trainer.serving.svc:29400")
    more = ("--metrics-listen", "0.0.0.0:2", "--target", "pvc://m/t", "--claims", "/claims")
    assert parse_settings([*RANK, *more]) == RankSettings(
        listen="0.0.0.0:9002",
        trainer="chat-trainer.serving.svc:29400",
        metrics_listen="0.0.0.0:2",
        target="pvc://m/t",
        claims=Path("/claims"),
    )


def test_mutual_tls_requires_an_admitted_client():
    with pytest.raises(InvalidInputError, match="--tls without --admit"):
        parse_settings([*TRAIN, "--tls", "folder"])
    with pytest.raises(InvalidInputError, match="--admit without --tls"):
        parse_settings([*TRAIN, "--admit", "operator"])


def test_all_problems_are_reported_together():
    with pytest.raises(InvalidInputError) as error:
        parse_settings([*TRAIN, "--batch-size", "0", "--ranks", "0", "--admit", "y"])
    for part in ("--batch-size is 0", "--ranks is 0", "--admit without"):
        assert part in str(error.value)
