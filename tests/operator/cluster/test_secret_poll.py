"""How often Secrets are looked at."""

import math

import pytest

from aurora_operator.cluster.secret_poll import pause_seconds


def round_seconds(deployments):
    return math.ceil(deployments / 10) * pause_seconds(deployments)


@pytest.mark.parametrize("deployments", [1, 10, 11, 20, 49, 50])
def test_few_deployments_are_looked_at_in_six_seconds(deployments):
    assert round_seconds(deployments) == pytest.approx(6.0)


@pytest.mark.parametrize("deployments", [51, 60, 100, 200, 340, 1000])
def test_a_round_of_many_takes_less_than_a_second_for_each(deployments):
    assert 6.0 < round_seconds(deployments) <= 0.8 * deployments + 8.0


def test_the_polls_of_many_cost_no_more_than_ten_deployments_in_eight_seconds():
    assert {pause_seconds(deployments) for deployments in (400, 1000, 5000)} == {8.0}


def test_without_deployments_there_is_a_pause():
    assert pause_seconds(0) == pytest.approx(6.0)
