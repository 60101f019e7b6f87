"""The command lines of `train` and `gradient`."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurora_common.errors import InvalidInputError
from aurora_trainer.settings import Endpoint, GradientSettings, TrainSettings, parse_settings

TRAIN = (
    *("train", "--listen", "0.0.0.0:50053", "--buffer", "buffer:50052"),
    *("--target", "t", "--models", "m", "--state", "s", "--objective", "LK"),
    *("--min-new-trajectories", "1", "--min-interval-seconds", "0", "--learning-rate", "1e-4"),
    *("--batch-size", "32", "--steps-per-round", "50", "--holdout-percent", "5"),
)
GRADIENT = ("gradient", "--listen", "0.0.0.0:9000")
TLS = ("--tls", "folder", "--admit", "operator")
AT = ("--replicas-at", "gradient.ns.svc:9000")
NAME = ("--replicas-name", "trainer.ns.svc")


def test_it_trains_alone_by_default():
    settings = parse_settings(TRAIN)
    assert isinstance(settings, TrainSettings)
    assert (settings.replicas_at, settings.replicas_name) == ((), None)


def test_replicas_may_have_several_endpoints():
    settings = parse_settings([*TRAIN, *AT, "--replicas-at", "[::1]:7"])
    assert settings.replicas_at == (Endpoint("gradient.ns.svc", 9000), Endpoint("::1", 7))


def test_two_listeners_on_one_port():
    with pytest.raises(InvalidInputError, match="--listen and --metrics-listen are both on port"):
        parse_settings([*TRAIN, "--metrics-listen", "127.0.0.1:50053"])


def test_by_mutual_tls_replicas_have_a_name():
    settings = parse_settings([*TRAIN, *TLS, *AT, *NAME])
    assert settings.replicas_name == "trainer.ns.svc"
    with pytest.raises(InvalidInputError, match="--replicas-name is required"):
        parse_settings([*TRAIN, *TLS, *AT])
    with pytest.raises(InvalidInputError, match="--replicas-name without --tls"):
        parse_settings([*TRAIN, *AT, *NAME])


def test_a_head_learns_beside_its_target():
    settings = parse_settings([*TRAIN, "--draft-kind", "eagle3", "--targets", "Recompute"])
    assert (settings.unroll_steps, settings.unroll_decay) == (7, 0.8)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--draft-kind", "eagle3"], "allowed is --targets Recompute"),
        (["--targets", "Recompute", *AT], "replicas do not hold the target"),
        (["--unroll-steps", "17"], "--unroll-steps is 17: allowed is 1 to 16"),
        (["--unroll-decay", "0"], "--unroll-decay is 0.0: allowed is 0.01 to 1"),
    ],
)
def test_what_does_not_go_together_is_refused(flags, problem):
    with pytest.raises(InvalidInputError, match=problem):
        parse_settings([*TRAIN, *flags])


def test_a_gradient_replica_needs_an_address_alone():
    assert parse_settings(GRADIENT) == GradientSettings(listen="0.0.0.0:9000")
    more = ("--health-listen", "0.0.0.0:1", "--metrics-listen", "0.0.0.0:2")
    assert parse_settings([*GRADIENT, *TLS, *more]) == GradientSettings(
        listen="0.0.0.0:9000",
        tls=Path("folder"),
        admit=("operator",),
        health_listen="0.0.0.0:1",
        metrics_listen="0.0.0.0:2",
    )


@pytest.mark.parametrize("command", [TRAIN, GRADIENT])
def test_mutual_tls_requires_an_admitted_client(command):
    with pytest.raises(InvalidInputError, match="--tls without --admit"):
        parse_settings([*command, "--tls", "folder"])
    with pytest.raises(InvalidInputError, match="--admit without --tls"):
        parse_settings([*command, "--admit", "operator"])


@pytest.mark.parametrize("text", ["trainer", ":1", "trainer:", "trainer:0", "trainer:65536"])
def test_a_place_of_replicas_is_host_and_port(text):
    with pytest.raises(InvalidInputError, match="expected HOST:PORT"):
        parse_settings([*TRAIN, "--replicas-at", text])


def test_all_problems_are_reported_together():
    with pytest.raises(InvalidInputError) as error:
        parse_settings([*TRAIN, "--batch-size", "0", "--replicas-at", "x", "--admit", "y", *NAME])
    for part in ("--batch-size is 0", "--replicas-at is 'x'", "--admit without", "--replicas-name"):
        assert part in str(error.value)
