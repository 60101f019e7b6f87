"""Whether traffic has changed: the mixture of domains, or how much is accepted in one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

# Two exponential averages: over the last dozen requests, and over the last hundred.
_FAST_RATE, _SLOW_RATE = 1 / 16, 1 / 128
# So many requests are seen before anything is said.
_LEAST_REQUESTS = 32
# Half of the traffic is in other domains: beyond what chance does to 32 domains alike.
_MIXTURE_DISTANCE = 0.5
# Acceptance has fallen by so many points, and by so many standard errors of the fast average.
_LEAST_FALL, _FALL_ERRORS = 0.05, 4.0
_FAST_ERROR = math.sqrt(_FAST_RATE / (2 - _FAST_RATE))
# Clients choose domain names freely: those beyond the limit are one.
_DOMAINS, _OTHERS = 32, ""


@dataclass(frozen=True, slots=True)
class Averages:
    """Of one domain: its shares of all requests, and of the `count` in which tokens were drafted
    the acceptance rate and its variance from request to request."""

    fast_share: float = 0.0
    slow_share: float = 0.0
    count: int = 0
    fast: float = 0.0
    slow: float = 0.0
    variance: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests since traffic last changed."""

    requests: int = 0
    domains: Mapping[str, Averages] = field(default_factory=dict)


def observed(traffic: Traffic, domain: str, acceptance: float | None) -> Traffic:
    """With one request more; `acceptance`: accepted / drafted tokens, None if none was drafted."""
    requests = traffic.requests + 1
    domains = dict(traffic.domains)
    if domain not in domains and len(domains) >= _DOMAINS - 1:
        domain = _OTHERS
    domains.setdefault(domain, Averages())
    # Averages of all so far at first, so that the first request does not count for more.
    fast, slow = max(_FAST_RATE, 1 / requests), max(_SLOW_RATE, 1 / requests)
    for name, each in domains.items():
        here = float(name == domain)
        domains[name] = replace(
            each,
            fast_share=each.fast_share + fast * (here - each.fast_share),
            slow_share=each.slow_share + slow * (here - each.slow_share),
        )
    if acceptance is not None:
        domains[domain] = _with_acceptance(domains[domain], acceptance)
    return Traffic(requests, domains)


def drift(traffic: Traffic) -> str:
    """How traffic has changed; empty if it has not. After a change a new Traffic begins."""
    if traffic.requests < _LEAST_REQUESTS:
        return ""
    moved = [each.fast_share - each.slow_share for each in traffic.domains.values()]
    distance = math.fsum(map(abs, moved)) / 2
    if distance >= _MIXTURE_DISTANCE:
        return f"{distance:.0%} of the requests are in other domains"
    for name, each in sorted(traffic.domains.items()):
        error = _FAST_ERROR * math.sqrt(each.variance)
        if each.count >= _LEAST_REQUESTS and (
            each.slow - each.fast >= max(_LEAST_FALL, _FALL_ERRORS * error)
        ):
            where = f"domain {name}" if name else "requests without a domain"
            return f"acceptance of {where} fell from {each.slow:.1%} to {each.fast:.1%}"
    return ""


def _with_acceptance(each: Averages, acceptance: float) -> Averages:
    count = each.count + 1
    fast, slow = max(_FAST_RATE, 1 / count), max(_SLOW_RATE, 1 / count)
    deviation = acceptance - each.slow
    return replace(
        each,
        count=count,
        fast=each.fast + fast * (acceptance - each.fast),
        slow=each.slow + slow * deviation,
        # West 1979, with a rate in place of 1 / n.
        variance=(1 - slow) * (each.variance + slow * deviation**2),
    )
