"""What counts as a change of traffic."""

from __future__ import annotations

import numpy as np
import pytest

from aurora_trainer.control.traffic import Traffic, drift, observed


def served(requests):
    """The number of requests after which a change is seen, and how; None if none is."""
    traffic = Traffic()
    for number, (domain, acceptance) in enumerate(requests, 1):
        traffic = observed(traffic, domain, acceptance)
        if change := drift(traffic):
            return number, change
    return None


def noisy(domain, mean, count, *, seed=0, spread=0.15):
    drawn = np.random.default_rng(seed).normal(mean, spread, count).clip(0, 1)
    return [(domain, float(each)) for each in drawn]


@pytest.mark.parametrize(
    ("requests", "within"),
    [
        # Another domain altogether.
        (noisy("a", 0.6, 200) + noisy("b", 0.6, 40), (201, 216)),
        (noisy("a", 0.6, 200) + [("b", None)] * 40, (201, 216)),
        # Less is accepted of the same.
        (noisy("a", 0.7, 200) + noisy("a", 0.3, 60), (201, 230)),
        # The same, and more: nothing to adapt to.
        (noisy("a", 0.6, 2000), None),
        (noisy("a", 0.3, 200) + noisy("a", 0.8, 200), None),
        ([("a", None)] * 500, None),
        # In turn, even in blocks of eight.
        ([(name, 0.5) for _ in range(40) for name in "aaaaaaaabbbbbbbb"], None),
        # Few requests say nothing.
        (noisy("a", 0.9, 16) + noisy("b", 0.1, 15), None),
    ],
)
def test_a_change_is_seen_soon_and_chance_is_not_one(requests, within):
    found = served(requests)
    if within is None:
        assert found is None
    else:
        assert within[0] <= found[0] <= within[1]


@pytest.mark.parametrize("names", [2, 8, 31, 200])
def test_domains_at_random_are_no_change(names):
    random = np.random.default_rng(names)
    requests = [(f"d{name}", 0.5) for name in random.integers(names, size=3000)]
    assert served(requests) is None


def test_it_says_what_has_changed():
    _, mixture = served([("a", 0.5)] * 100 + [("b", 0.5)] * 40)
    assert mixture == "51% of the requests are in other domains"
    _, fall = served([("chat", 0.5)] * 100 + [("chat", 0.1)] * 40)
    assert fall.startswith("acceptance of domain chat fell from 4")
    _, fall = served([("", 0.5)] * 100 + [("", 0.1)] * 40)
    assert fall.startswith("acceptance of requests without a domain fell from 4")


def test_the_record_of_domains_is_bounded():
    traffic = Traffic()
    for number in range(1000):
        traffic = observed(traffic, f"domain-{number}", 0.5)
    assert len(traffic.domains) == 32
