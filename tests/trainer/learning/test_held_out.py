"""What held-out trajectories say of the draft in training."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aurora_trainer.learning.held_out import held_out


def samples(*, positions=10, **domains):
    """So many of each domain, of which `no` is the one without a name."""
    return [
        SimpleNamespace(domain="" if name == "no" else name, output_count=positions)
        for name, count in domains.items()
        for _ in range(count)
    ]


def compared(found, stable, trained):
    """`stable`, `trained`: acceptance in each domain, or in all."""

    def by(rates):
        return lambda members: rates if isinstance(rates, float) else rates[members[0].domain]

    return held_out(found, stable=by(stable), trained=by(trained))


@pytest.mark.parametrize(
    ("stable", "trained", "prefers", "objects"),
    [
        (0.6, 0.61, False, False),
        # One hundredth of the verify steps is the least that is worth a rollout.
        (0.6, 0.6041, False, False),
        (0.6, 0.6039, False, True),
        (0.9, 0.9011, False, False),
        (0.9, 0.9009, False, True),
        (0.6, 0.6, False, True),
        (0.6, 0.5999, True, True),
    ],
)
def test_what_a_rollout_would_not_promote_is_an_objection(stable, trained, prefers, objects):
    found = compared(samples(a=20), stable, trained)
    assert found.prefers_stable == prefers
    assert bool(found.objection) == objects


def test_an_objection_says_what_was_compared():
    found = compared(samples(a=20, b=5), 0.6, 0.55)
    assert found.objection == (
        "55.0% accepted on 25 held-out trajectories, 60.0% with the stable draft"
    )


def test_longer_answers_weigh_more():
    found = samples(a=20) + samples(positions=100, b=20)
    assert compared(found, {"a": 0.5, "b": 0.6}, {"a": 0.6, "b": 0.58}).prefers_stable


@pytest.mark.parametrize(
    ("count", "trained", "objects"), [(16, 0.489, True), (16, 0.491, False), (15, 0.3, False)]
)
def test_a_domain_that_loses_more_than_a_point_is_an_objection(count, trained, objects):
    found = compared(samples(a=200, b=count), {"a": 0.6, "b": 0.5}, {"a": 0.7, "b": trained})
    assert not found.prefers_stable
    assert found.objection.startswith("domain b: ") == objects


def test_requests_without_a_domain_are_one():
    found = compared(samples(a=200, no=20), {"a": 0.6, "": 0.5}, {"a": 0.7, "": 0.4})
    assert found.objection.startswith("no domain: 40.0% accepted on 20 held-out trajectories")


def test_few_trajectories_say_nothing():
    assert compared(samples(a=8, b=7), 0.9, 0.1) is None
    assert compared(samples(a=8, b=8), 0.9, 0.1) is not None
