"""Command line and environment: who this replica is and where the others are."""

from __future__ import annotations

import pytest

from aurora_common.errors import InvalidInputError
from aurora_trainer.settings import Endpoint, parse_settings

ARGUMENTS = (
    *("--listen", "0.0.0.0:50053", "--buffer", "buffer:50052"),
    *("--target", "t", "--models", "m", "--state", "s", "--objective", "LK"),
    *("--min-new-trajectories", "1", "--min-interval-seconds", "0", "--learning-rate", "1e-4"),
    *("--batch-size", "32", "--steps-per-round", "50", "--holdout-percent", "5"),
)


def parsed(*more: str, **environment: str):
    return parse_settings([*ARGUMENTS, *more], environment)


def test_alone_by_default():
    settings = parsed()
    assert (settings.replica_index, settings.replicas_at, settings.pod_ip) == (0, (), None)
    assert settings.listen_port == 50053


def test_replicas_are_found_at_several_places():
    settings = parsed("--replicas-at", "trainer.ns.svc:50053", "--replicas-at", "[::1]:7")
    assert settings.replicas_at == (Endpoint("trainer.ns.svc", 50053), Endpoint("::1", 7))


def test_the_environment_says_who_it_is():
    settings = parsed(AURORA_REPLICA_INDEX="2", AURORA_POD_IP="10.0.0.7")
    assert (settings.replica_index, settings.pod_ip) == (2, "10.0.0.7")


@pytest.mark.parametrize("text", ["", "-1", "1.5", "one", "²"])
def test_a_replica_index_is_a_number(text):
    with pytest.raises(InvalidInputError, match=r"AURORA_REPLICA_INDEX is .* at least 0"):
        parsed(AURORA_REPLICA_INDEX=text)


@pytest.mark.parametrize("text", ["trainer", ":1", "trainer:", "trainer:0", "trainer:65536"])
def test_a_place_of_replicas_is_host_and_port(text):
    with pytest.raises(InvalidInputError, match="expected HOST:PORT"):
        parsed("--replicas-at", text)


def test_all_that_is_wrong_is_told_together():
    with pytest.raises(InvalidInputError) as error:
        parsed("--batch-size", "0", AURORA_POD_IP="here", AURORA_REPLICA_INDEX="x")
    for part in ("--batch-size is 0", "AURORA_POD_IP is 'here'", "AURORA_REPLICA_INDEX is 'x'"):
        assert part in str(error.value)


def test_by_mutual_tls_a_gradient_replica_must_know_who_may_call():
    with pytest.raises(InvalidInputError, match="needs --replicas-at"):
        parsed("--tls", "folder", "--admit", "operator", AURORA_REPLICA_INDEX="1")
    parsed("--tls", "folder", "--admit", "operator", AURORA_REPLICA_INDEX="0")
